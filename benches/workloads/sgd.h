/* Logistic regression by stochastic gradient descent, on data of the shape of RCV1: what the
 * functions and the native workers of the bench `sgd` have in common. */
#ifndef SGD_H
#define SGD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

enum {
  FEATURES = 47236,
  EXAMPLES = 20000,
  /* Examples of a value, and of a batch: so many between two looks at others' weights, where
   * looking costs. */
  CHUNK = 500,
  BATCH = 100,
  CHUNKS = EXAMPLES / CHUNK,
  NONZEROS_MIN = 25,
  NONZEROS_MAX = 125,
};

struct entry {
  uint32_t column;
  float value;
};

/* The value of a chunk; the entries of example i are starts[i] to starts[i + 1]. */
struct chunk {
  uint32_t starts[CHUNK + 1];
  float labels[CHUNK];
  struct entry entries[];
};

enum { CHUNK_BYTES_MAX = sizeof(struct chunk) + sizeof(struct entry) * CHUNK * NONZEROS_MAX };

static inline uint64_t mixed(uint64_t seed) {
  seed += UINT64_C(0x9e3779b97f4a7c15);
  seed = (seed ^ seed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  seed = (seed ^ seed >> 27) * UINT64_C(0x94d049bb133111eb);
  return seed ^ seed >> 31;
}

/* The next number of a sequence, from 0 to 1. */
static inline double next(uint64_t *state) {
  *state += 1;
  return (double)(mixed(*state) >> 11) * 0x1p-53;
}

/* Makes chunk `number`, always the same; gives its bytes. A few features are in many examples and
 * most are in few, as words are. One label of twenty is wrong. */
static inline size_t make_chunk(struct chunk *chunk, uint32_t number) {
  uint64_t state = mixed(number + 1), used = 0;
  for (int example = 0; example < CHUNK; example++) {
    uint64_t from = used;
    double square = 0, score = 0;
    int count = NONZEROS_MIN + (int)(next(&state) * (NONZEROS_MAX - NONZEROS_MIN));
    chunk->starts[example] = (uint32_t)from;
    for (int at = 0; at < count; at++) {
      double place = next(&state), value = 0.2 + next(&state);
      struct entry entry = {(uint32_t)(place * place * place * FEATURES), (float)value};
      chunk->entries[used++] = entry;
      square += value * value;
    }
    for (uint64_t at = from; at < used; at++) {
      struct entry *entry = &chunk->entries[at];
      uint64_t hidden = entry->column + UINT64_C(0x5eed00000000);
      entry->value /= (float)sqrt(square);
      score += entry->value * (next(&hidden) - 0.5);
    }
    chunk->labels[example] = (score > 0) == (next(&state) > 0.05) ? 1 : 0;
  }
  chunk->starts[CHUNK] = (uint32_t)used;
  return sizeof *chunk + used * sizeof(struct entry);
}

static inline float product(const float *weights, const struct chunk *chunk, int example) {
  float sum = 0;
  for (uint32_t at = chunk->starts[example]; at < chunk->starts[example + 1]; at++) {
    sum += weights[chunk->entries[at].column] * chunk->entries[at].value;
  }
  return sum;
}

/* One step for each example from `from` to `to`. Others may change the weights meanwhile, and
 * nobody takes turns: that is what HOGWILD! means. */
static inline void train(float *weights, const struct chunk *chunk, int from, int to, int epoch) {
  float rate = 1.0f / (float)(1 + epoch);
  for (int example = from; example < to; example++) {
    float guess = 1 / (1 + expf(-product(weights, chunk, example)));
    float step = rate * (chunk->labels[example] - guess);
    for (uint32_t at = chunk->starts[example]; at < chunk->starts[example + 1]; at++) {
      weights[chunk->entries[at].column] += step * chunk->entries[at].value;
    }
  }
}

/* The sum of the losses of a chunk's examples. */
static inline double loss_of(const float *weights, const struct chunk *chunk) {
  double loss = 0;
  for (int example = 0; example < CHUNK; example++) {
    double margin = product(weights, chunk, example) * (chunk->labels[example] > 0.5f ? 1 : -1);
    loss += log1p(exp(-margin));
  }
  return loss;
}

#endif
