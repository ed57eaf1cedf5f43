/* What state costs, measured by the guest itself. The input names the measurement; the reply is one
 * number a line. Nanoseconds unless said. */
#define _POSIX_C_SOURCE 200809L
#include <dunlin.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { BYTES = 1 << 20, WORDS = BYTES / 8, ROUNDS = 400, GETS = 20000, MAPS = 64 };

static char reply[1 << 16];
static size_t used;
static volatile uint64_t sink;

static uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void say(uint64_t number) {
  used += (size_t)snprintf(reply + used, sizeof reply - used, "%llu\n", (unsigned long long)number);
}

/* Reads and writes every word, with a dependence that keeps the compiler from leaving it out. */
__attribute__((noinline)) static uint64_t work(uint64_t *words, uint64_t seed) {
  for (size_t at = 0; at < WORDS; at++) {
    words[at] = words[at] * 3 + seed;
    seed ^= words[at];
  }
  return seed;
}

static uint64_t timed(uint64_t *words) {
  uint64_t begun = now_ns();
  for (int round = 0; round < ROUNDS / 8; round++) sink = work(words, (uint64_t)round);
  return now_ns() - begun;
}

/* Pairs of times: plain memory, then mapped. */
static int access_cost(void) {
  static uint64_t plain[WORDS];
  uint64_t *mapped = (uint64_t *)dunlin_map("probe/access", 0, BYTES, DUNLIN_WRITE, NULL);
  if (mapped == NULL) return 1;
  sink = work(plain, 1) + work(mapped, 1);
  for (int pair = 0; pair < 8; pair++) {
    say(timed(plain));
    say(timed(mapped));
  }
  return 0;
}

static int map_cost(void) {
  char key[32];
  for (int at = 0; at < MAPS; at++) {
    snprintf(key, sizeof key, "probe/map/%d", at);
    uint64_t begun = now_ns();
    if (dunlin_map(key, 0, BYTES, DUNLIN_WRITE, NULL) == NULL) return 1;
    say(now_ns() - begun);
  }
  return 0;
}

/* The mean over many, since the clock is coarser than one. */
static int get_cost(void) {
  char value[64] = {1};
  if (dunlin_set("probe/get", value, sizeof value) < 0) return 1;
  for (int batch = 0; batch < 9; batch++) {
    uint64_t begun = now_ns();
    for (int at = 0; at < GETS; at++) {
      if (dunlin_state_get("probe/get", 9, value, sizeof value) != sizeof value) return 1;
    }
    say((now_ns() - begun) / GETS);
  }
  return 0;
}

DUNLIN_HANDLE handle(void) {
  size_t length;
  char *what = dunlin_input(&length);
  int failed = 1;
  if (what != NULL && strcmp(what, "access") == 0) failed = access_cost();
  if (what != NULL && strcmp(what, "map") == 0) failed = map_cost();
  if (what != NULL && strcmp(what, "get") == 0) failed = get_cost();
  dunlin_output_write(reply, (int32_t)used);
  return failed;
}
