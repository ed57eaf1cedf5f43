/* Logistic regression by native processes that keep their state in Redis.
 *
 * usage: sgd HOST PORT load | reset | loss | work WORKER WORKERS EPOCHS
 *
 * A worker fetches its examples once. The weights are one value of 32-bit fixed-point numbers: a
 * batch begins with all of them by one GET, and ends with what it added to each that it touched, by
 * one BITFIELD, so that no addition of another worker is lost. That and the next GET go out
 * together and only the GET is answered: a round trip for each batch. */
#include "redis.h"
#include "sgd.h"

static const char WEIGHTS[] = "sgd/weights";
static const double SCALE = 1 << 24;

static int32_t pulled[FEATURES];
static float weights[FEATURES];
static uint8_t touched[FEATURES];
static uint32_t columns[BATCH * NONZEROS_MAX];

static void name_chunk(char key[32], uint32_t number) { snprintf(key, 32, "sgd/chunk/%u", number); }

static void load(struct redis *redis) {
  struct chunk *chunk = (struct chunk *)malloc(CHUNK_BYTES_MAX);
  for (uint32_t number = 0; number < CHUNKS; number++) {
    char key[32];
    name_chunk(key, number);
    redis_set(redis, key, chunk, make_chunk(chunk, number));
    redis_send(redis);
    redis_status(redis);
  }
}

static void reset(struct redis *redis) {
  redis_set(redis, WEIGHTS, pulled, sizeof pulled);
  redis_send(redis);
  redis_status(redis);
}

static struct chunk *fetch(struct redis *redis, uint32_t number) {
  char key[32];
  size_t length;
  name_chunk(key, number);
  redis_get(redis, key);
  redis_send(redis);
  const char *bytes = redis_bulk(redis, &length);
  struct chunk *chunk = (struct chunk *)malloc(length);
  if (chunk == NULL) fail("no memory");
  return (struct chunk *)memcpy(chunk, bytes, length);
}

/* Takes the answer to a GET of the weights. */
static void pull(struct redis *redis) {
  size_t length;
  const char *bytes = redis_bulk(redis, &length);
  if (length != sizeof pulled) fail("weights of another size");
  memcpy(pulled, bytes, sizeof pulled);
  for (int at = 0; at < FEATURES; at++) {
    pulled[at] = (int32_t)__builtin_bswap32((uint32_t)pulled[at]);
    weights[at] = (float)pulled[at] * (float)(1 / SCALE);
  }
}

/* Adds what a batch changed to what will be sent. */
static void push(struct redis *redis, const struct chunk *chunk, int from, int to) {
  static const char increase[] = "$6\r\nINCRBY\r\n$3\r\ni32\r\n";
  size_t count = 0;
  for (uint32_t at = chunk->starts[from]; at < chunk->starts[to]; at++) {
    uint32_t column = chunk->entries[at].column;
    if (touched[column]) continue;
    touched[column] = 1;
    columns[count++] = column;
  }
  redis_begin(redis, 3);
  redis_text(redis, "CLIENT");
  redis_text(redis, "REPLY");
  redis_text(redis, "SKIP");
  redis_begin(redis, 2 + 4 * count);
  redis_text(redis, "BITFIELD");
  redis_text(redis, WEIGHTS);
  for (size_t at = 0; at < count; at++) {
    char place[16], change[16];
    uint32_t column = columns[at];
    int32_t more = (int32_t)lrint(weights[column] * SCALE) - pulled[column];
    redis_bytes(redis, increase, sizeof increase - 1);
    redis_word(redis, place, (size_t)sprintf(place, "#%u", column));
    redis_word(redis, change, (size_t)sprintf(change, "%d", more));
    touched[column] = 0;
  }
}

static void work(struct redis *redis, uint32_t worker, uint32_t workers, int epochs) {
  struct chunk *chunks[CHUNKS];
  wait_for_go();
  for (uint32_t at = worker; at < CHUNKS; at += workers) chunks[at] = fetch(redis, at);
  redis_get(redis, WEIGHTS);
  for (int epoch = 0; epoch < epochs; epoch++) {
    for (uint32_t at = worker; at < CHUNKS; at += workers) {
      for (int from = 0; from < CHUNK; from += BATCH) {
        redis_send(redis);
        pull(redis);
        train(weights, chunks[at], from, from + BATCH, epoch);
        push(redis, chunks[at], from, from + BATCH);
        redis_get(redis, WEIGHTS);
      }
    }
  }
  redis_send(redis);
  pull(redis);
  puts("done");
}

static void loss(struct redis *redis) {
  double sum = 0;
  redis_get(redis, WEIGHTS);
  redis_send(redis);
  pull(redis);
  for (uint32_t number = 0; number < CHUNKS; number++) {
    struct chunk *chunk = fetch(redis, number);
    sum += loss_of(weights, chunk);
    free(chunk);
  }
  printf("%.6f\n", sum / EXAMPLES);
}

int main(int count, char **words) {
  if (count < 4) fail("usage: sgd HOST PORT load | reset | loss | work WORKER WORKERS EPOCHS");
  struct redis redis = redis_connect(words[1], words[2]);
  if (strcmp(words[3], "load") == 0) load(&redis);
  else if (strcmp(words[3], "reset") == 0) reset(&redis);
  else if (strcmp(words[3], "loss") == 0) loss(&redis);
  else if (count == 7) {
    work(&redis, (uint32_t)atoi(words[4]), (uint32_t)atoi(words[5]), atoi(words[6]));
  } else fail("no such work");
  return 0;
}
