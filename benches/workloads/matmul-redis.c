/* A matrix product by native processes that take tasks from a list in Redis and keep blocks there.
 *
 * usage: matmul HOST PORT load | reset | sum | work WORKERS
 *
 * A leaf task GETs two blocks and SETs their product; the last of eight makes their parent a task,
 * which GETs the eight products and SETs their sum. One round trip fetches, one stores. */
#include "matmul.h"
#include "redis.h"

static const char TASKS[] = "matmul/tasks";
/* What ends a worker, instead of a path. */
static const char END[] = "0";

static float parts[2][SIDE * SIDE / 4], whole[SIDE * SIDE];

static void name_block(char key[32], int which, int row, int col) {
  snprintf(key, 32, "matmul/%c/%d/%d", 'a' + which, row, col);
}

static void name_result(char key[32], uint32_t path) { snprintf(key, 32, "matmul/of/%u", path); }

static void name_left(char key[32], uint32_t path) { snprintf(key, 32, "matmul/left/%u", path); }

static void add_task(struct redis *redis, const char *task) {
  redis_begin(redis, 3);
  redis_text(redis, "LPUSH");
  redis_text(redis, TASKS);
  redis_text(redis, task);
}

static void load_factors(struct redis *redis) {
  for (int at = 0; at < 2 * BLOCKS * BLOCKS; at++) {
    char key[32];
    int which = at / (BLOCKS * BLOCKS), row = at / BLOCKS % BLOCKS, col = at % BLOCKS;
    fill(whole, which, row, col);
    name_block(key, which, row, col);
    redis_set(redis, key, whole, LEAF * LEAF * sizeof(float));
    redis_send(redis);
    redis_status(redis);
  }
}

/* Makes every leaf a task: the tree above them is known to all. */
static void load_tasks(struct redis *redis) {
  uint32_t leaves = 1, commands = 0;
  for (int level = 0; level < LEVELS; level++) leaves *= 8;
  for (uint32_t path = 1; path < leaves; path++) {
    char key[32];
    if (side_of(path) <= LEAF) continue;
    name_left(key, path);
    redis_set(redis, key, "8", 1);
    commands++;
  }
  for (uint32_t path = leaves; path < 2 * leaves; path++, commands++) {
    char task[16];
    snprintf(task, sizeof task, "%u", path);
    add_task(redis, task);
  }
  redis_send(redis);
  while (commands-- > 0) redis_status(redis);
}

/* The next task; sleeps where there is none. */
static uint32_t take_task(struct redis *redis) {
  size_t length;
  redis_begin(redis, 3);
  redis_text(redis, "BRPOP");
  redis_text(redis, TASKS);
  redis_text(redis, "0");
  redis_send(redis);
  if (redis_line(redis)[0] != '*') fail("no task");
  redis_bulk(redis, &length);
  return (uint32_t)atoi(redis_bulk(redis, &length));
}

static void leaf(struct redis *redis, uint32_t path) {
  struct leaf place = leaf_of(path);
  char key[32];
  name_block(key, 0, place.row, place.inner);
  redis_get(redis, key);
  name_block(key, 1, place.inner, place.col);
  redis_get(redis, key);
  redis_send(redis);
  for (int which = 0; which < 2; which++) {
    size_t length;
    const char *bytes = redis_bulk(redis, &length);
    memcpy(parts[which], bytes, length);
  }
  multiply(whole, parts[0], parts[1]);
}

static void merge(struct redis *redis, uint32_t path) {
  for (uint32_t digit = 0; digit < 8; digit++) {
    char key[32];
    name_result(key, path * 8 + digit);
    redis_get(redis, key);
  }
  redis_send(redis);
  for (uint32_t digit = 0; digit < 8; digit++) {
    size_t length;
    const char *bytes = redis_bulk(redis, &length);
    memcpy(parts[digit & 1], bytes, length);
    if (digit & 1) add_pair(whole, parts[0], parts[1], side_of(path), digit);
  }
}

static void work(struct redis *redis, int workers) {
  uint32_t path;
  wait_for_go();
  while ((path = take_task(redis)) != 0) {
    char key[32];
    int side = side_of(path);
    if (side == LEAF) leaf(redis, path);
    else merge(redis, path);
    name_result(key, path);
    redis_set(redis, key, whole, (size_t)side * (size_t)side * sizeof(float));
    name_left(key, path / 8);
    redis_begin(redis, 2);
    redis_text(redis, "DECR");
    redis_text(redis, path == 1 ? "matmul/done" : key);
    redis_send(redis);
    redis_status(redis);
    int64_t left = redis_status(redis);
    if (path > 1 && left != 0) continue;
    char task[16];
    snprintf(task, sizeof task, "%u", path / 8);
    int tasks = path == 1 ? workers : 1;
    for (int at = 0; at < tasks; at++) add_task(redis, path == 1 ? END : task);
    redis_send(redis);
    for (int at = 0; at < tasks; at++) redis_status(redis);
  }
  puts("done");
}

static void sum(struct redis *redis) {
  size_t length;
  redis_get(redis, "matmul/of/1");
  redis_send(redis);
  const char *bytes = redis_bulk(redis, &length);
  if (length != sizeof whole) fail("a product of another size");
  memcpy(whole, bytes, length);
  printf("%llu\n", (unsigned long long)checksum(whole));
}

int main(int count, char **words) {
  if (count < 4) fail("usage: matmul HOST PORT load | reset | sum | work WORKERS");
  struct redis redis = redis_connect(words[1], words[2]);
  if (strcmp(words[3], "load") == 0) load_factors(&redis);
  else if (strcmp(words[3], "reset") == 0) load_tasks(&redis);
  else if (strcmp(words[3], "sum") == 0) sum(&redis);
  else if (count == 5) work(&redis, atoi(words[4]));
  else fail("no such work");
  return 0;
}
