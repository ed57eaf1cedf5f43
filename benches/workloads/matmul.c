/* A matrix product by functions that call themselves: the matrices and all results between are
 * mapped, and a call carries nothing but a path. */
#include <dunlin.h>
#include <stdio.h>

#include "matmul.h"

static const char NAME[] = "matmul";
static const char FACTORS[2][16] = {"matmul/a", "matmul/b"};

enum { BLOCK_BYTES = LEAF * LEAF * sizeof(float) };

/* A block of a factor: each lies whole, one after the other. */
static const float *block(int which, int row, int col) {
  uint64_t at = (uint64_t)(row * BLOCKS + col);
  return (const float *)dunlin_map(FACTORS[which], at * BLOCK_BYTES, BLOCK_BYTES, DUNLIN_READ,
                                   NULL);
}

static uint64_t bytes_of(uint32_t path) {
  uint64_t side = (uint64_t)side_of(path);
  return side * side * sizeof(float);
}

static void name_results(char key[32], uint32_t path) { snprintf(key, 32, "matmul/of/%u", path); }

/* Where a task's result goes: those of the eight below a path lie one after the other. */
static float *result(uint32_t path, enum dunlin_access access) {
  char key[32];
  uint64_t at = path == 1 ? 0 : path & 7, bytes = bytes_of(path);
  name_results(key, path / 8);
  return (float *)dunlin_map(key, at * bytes, bytes, access, NULL);
}

static int load(void) {
  for (int which = 0; which < 2; which++) {
    float *to = (float *)dunlin_map(FACTORS[which], 0, SIDE * SIDE * sizeof(float), DUNLIN_WRITE,
                                    NULL);
    if (to == NULL) return 1;
    for (int at = 0; at < BLOCKS * BLOCKS; at++) {
      fill(to + at * LEAF * LEAF, which, at / BLOCKS, at % BLOCKS);
    }
  }
  return 0;
}

static int leaf(uint32_t path) {
  struct leaf place = leaf_of(path);
  const float *a = block(0, place.row, place.inner), *b = block(1, place.inner, place.col);
  float *c = result(path, DUNLIN_WRITE);
  if (a == NULL || b == NULL || c == NULL) return 1;
  multiply(c, a, b);
  return 0;
}

/* Adds the eight results below a path. */
static int merge(uint32_t path) {
  char key[32];
  int side = side_of(path);
  size_t numbers = (size_t)(side / 2) * (size_t)(side / 2);
  name_results(key, path);
  const float *parts = (const float *)dunlin_map(key, 0, 0, DUNLIN_READ, NULL);
  float *c = result(path, DUNLIN_WRITE);
  if (parts == NULL || c == NULL) return 1;
  for (uint32_t digit = 0; digit < 8; digit += 2) {
    add_pair(c, parts + digit * numbers, parts + (digit + 1) * numbers, side, digit);
  }
  return 0;
}

/* Has eight tasks done. Leaves one after the other, which costs least: enough of their parents run
 * at once. */
static int product(uint32_t path) {
  uint32_t handles[8];
  if (side_of(path) == LEAF) return leaf(path);
  for (uint32_t digit = 0; digit < 8; digit++) {
    char input[16];
    size_t length = (size_t)snprintf(input, sizeof input, "%u", path * 8 + digit);
    int64_t handle = side_of(path) == 2 * LEAF
                         ? dunlin_chain_call(NAME, strlen(NAME), input, length)
                         : dunlin_spawn(NAME, input, length, 0);
    if (handle < 0) return 1;
    handles[digit] = (uint32_t)handle;
  }
  if (dunlin_all(handles, 8, DUNLIN_FOREVER) != 0) return 1;
  return merge(path);
}

static int sum(void) {
  char reply[32];
  const float *c = result(1, DUNLIN_READ);
  if (c == NULL) return 1;
  dunlin_output_write(
      reply, snprintf(reply, sizeof reply, "%llu\n", (unsigned long long)checksum(c)));
  return 0;
}

DUNLIN_HANDLE handle(void) {
  size_t length;
  char *what = dunlin_input(&length);
  if (what == NULL) return 1;
  if (strcmp(what, "load") == 0) return load();
  if (strcmp(what, "sum") == 0) return sum();
  if (strcmp(what, "all") == 0) return load() || product(1) || sum();
  uint32_t path = (uint32_t)atoi(what);
  return path == 0 ? 1 : product(path);
}
