/* Logistic regression by functions that share their state: the examples and the weights are mapped,
 * and nothing is copied. The input is what to do; where there is something to say, the reply is it. */
#include <dunlin.h>
#include <stdio.h>

#include "sgd.h"

static const char WEIGHTS[] = "sgd/weights";

static float *weights(enum dunlin_access access) {
  return (float *)dunlin_map(WEIGHTS, 0, FEATURES * sizeof(float), access, NULL);
}

static void name_chunk(char key[32], uint32_t number) { snprintf(key, 32, "sgd/chunk/%u", number); }

static const struct chunk *chunk(uint32_t number) {
  char key[32];
  name_chunk(key, number);
  return (const struct chunk *)dunlin_map(key, 0, 0, DUNLIN_READ, NULL);
}

static int load(void) {
  struct chunk *chunk = (struct chunk *)malloc(CHUNK_BYTES_MAX);
  if (chunk == NULL) return 1;
  for (uint32_t number = 0; number < CHUNKS; number++) {
    char key[32];
    name_chunk(key, number);
    if (dunlin_set(key, chunk, make_chunk(chunk, number)) < 0) return 1;
  }
  return 0;
}

static int reset(void) {
  float *all = weights(DUNLIN_WRITE);
  if (all == NULL) return 1;
  memset(all, 0, FEATURES * sizeof *all);
  return 0;
}

/* One epoch over the chunks of one worker. */
static int work(uint32_t worker, uint32_t workers, int epoch) {
  float *all = weights(DUNLIN_WRITE);
  if (all == NULL) return 1;
  for (uint32_t number = worker; number < CHUNKS; number += workers) {
    const struct chunk *examples = chunk(number);
    if (examples == NULL) return 1;
    train(all, examples, 0, CHUNK, epoch);
  }
  return 0;
}

/* Has all workers do all epochs. */
static int run(uint32_t workers, int epochs) {
  uint32_t handles[64];
  if (workers > 64) return 1;
  for (int epoch = 0; epoch < epochs; epoch++) {
    for (uint32_t worker = 0; worker < workers; worker++) {
      char input[64];
      int length = snprintf(input, sizeof input, "work %u %u %d", worker, workers, epoch);
      int64_t handle = dunlin_spawn("sgd", input, (size_t)length, 0);
      if (handle < 0) return 1;
      handles[worker] = (uint32_t)handle;
    }
    if (dunlin_all(handles, workers, DUNLIN_FOREVER) != 0) return 1;
    for (uint32_t worker = 0; worker < workers; worker++) dunlin_chain_close(handles[worker]);
  }
  return 0;
}

static int loss(void) {
  const float *all = weights(DUNLIN_READ);
  double sum = 0;
  char reply[32];
  if (all == NULL) return 1;
  for (uint32_t number = 0; number < CHUNKS; number++) {
    const struct chunk *examples = chunk(number);
    if (examples == NULL) return 1;
    sum += loss_of(all, examples);
  }
  dunlin_output_write(reply, snprintf(reply, sizeof reply, "%.6f\n", sum / EXAMPLES));
  return 0;
}

DUNLIN_HANDLE handle(void) {
  size_t length;
  uint32_t worker, workers;
  int epochs;
  char *what = dunlin_input(&length);
  if (what == NULL) return 1;
  if (strcmp(what, "load") == 0) return load();
  if (strcmp(what, "reset") == 0) return reset();
  if (strcmp(what, "loss") == 0) return loss();
  if (sscanf(what, "run %u %d", &workers, &epochs) == 2) return run(workers, epochs);
  if (sscanf(what, "work %u %u %d", &worker, &workers, &epochs) == 3) {
    return work(worker, workers, epochs);
  }
  return 1;
}
