/* A matrix product by divide and conquer: what the functions and the native workers of the bench
 * `matmul` have in common.
 *
 * The product of two matrices is that of their quarters: eight products of half the side, each a
 * task, whose results a ninth task adds in pairs. A task is named by its path: an 8-ary digit for
 * each level, in a number with a 1 before them. */
#ifndef MATMUL_H
#define MATMUL_H

#include <stdint.h>

enum {
  SIDE = 1024,
  LEAF = 256,
  LEVELS = 2,
  BLOCKS = SIDE / LEAF,
  /* Rows of b that stay in the nearest cache, and rows of c that are computed together. */
  TILE = 32,
  ROWS = 4,
};

/* The side of a task's result. */
static inline int side_of(uint32_t path) {
  int side = SIDE;
  for (; path > 1; path /= 8) side /= 2;
  return side;
}

/* A quarter product: C[row][col] += A[row][inner] * B[inner][col]. */
static inline int row_of(uint32_t digit) { return (int)(digit >> 2 & 1); }
static inline int col_of(uint32_t digit) { return (int)(digit >> 1 & 1); }
static inline int inner_of(uint32_t digit) { return (int)(digit & 1); }

/* Which blocks a leaf multiplies. */
struct leaf {
  int row, col, inner;
};

static inline struct leaf leaf_of(uint32_t path) {
  struct leaf leaf = {0, 0, 0};
  for (int bit = 1; path > 1; path /= 8, bit *= 2) {
    leaf.row += row_of(path & 7) * bit;
    leaf.col += col_of(path & 7) * bit;
    leaf.inner += inner_of(path & 7) * bit;
  }
  return leaf;
}

/* Fills a block of matrix `which`: small whole numbers, so that sums are exact. */
static inline void fill(float *block, int which, int row, int col) {
  for (int at = 0; at < LEAF * LEAF; at++) {
    int x = row * LEAF + at / LEAF, y = col * LEAF + at % LEAF;
    block[at] = (float)((x * 7 + y * 13 + which * 5) % 11 - 5);
  }
}

/* Four numbers that are computed with at once, in every compiler and on every machine. */
typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

/* Adds to ROWS by 8 numbers of c what TILE of the numbers between a and b make of them; all that
 * is added to stays in registers. */
static inline void add_tile(float *c, const float *a, const float *b) {
  four sums[ROWS][2];
  for (int row = 0; row < ROWS; row++) {
    for (int at = 0; at < 2; at++) sums[row][at] = *(const four *)(c + row * LEAF + 4 * at);
  }
  for (int inner = 0; inner < TILE; inner++) {
    four left = *(const four *)(b + inner * LEAF), right = *(const four *)(b + inner * LEAF + 4);
    for (int row = 0; row < ROWS; row++) {
      float factor = a[row * LEAF + inner];
      sums[row][0] += factor * left;
      sums[row][1] += factor * right;
    }
  }
  for (int row = 0; row < ROWS; row++) {
    for (int at = 0; at < 2; at++) *(four *)(c + row * LEAF + 4 * at) = sums[row][at];
  }
}

/* c = a * b, blocks of LEAF by LEAF. */
static inline void multiply(float *c, const float *a, const float *b) {
  for (int at = 0; at < LEAF * LEAF; at++) c[at] = 0;
  for (int inner = 0; inner < LEAF; inner += TILE) {
    for (int col = 0; col < LEAF; col += 8) {
      for (int row = 0; row < LEAF; row += ROWS) {
        add_tile(c + row * LEAF + col, a + row * LEAF + inner, b + inner * LEAF + col);
      }
    }
  }
}

/* Adds a pair of results of half the side into a quarter of c. */
static inline void add_pair(float *restrict c, const float *restrict one,
                            const float *restrict other, int side, uint32_t digit) {
  int half = side / 2;
  for (int row = 0; row < half; row++) {
    float *to = c + (row + row_of(digit) * half) * side + col_of(digit) * half;
    for (int col = 0; col < half; col++) to[col] = one[row * half + col] + other[row * half + col];
  }
}

/* A sum over a matrix that tells wrong places too. */
static inline uint64_t checksum(const float *c) {
  uint64_t sum = 0;
  for (int at = 0; at < SIDE * SIDE; at++) {
    sum = sum * UINT64_C(6364136223846793005) + (uint64_t)(int64_t)c[at] + 1;
  }
  return sum;
}

#endif
