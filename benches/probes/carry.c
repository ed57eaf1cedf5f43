/* What a value costs that another node owns. The input is `get` or `set`, a number of bytes, a
 * number of rounds and a key; the reply is the nanoseconds of each round, one a line. */
#define _POSIX_C_SOURCE 200809L
#include <dunlin.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

DUNLIN_HANDLE handle(void) {
  static char reply[1 << 14];
  size_t length, used = 0;
  char *input = dunlin_input(&length), what[8], key[64];
  int bytes, rounds;
  if (input == NULL || sscanf(input, "%7s %d %d %63s", what, &bytes, &rounds, key) != 4) return 1;
  int gets = strcmp(what, "get") == 0;
  char *value = malloc((size_t)bytes);
  if (value == NULL) return 1;
  memset(value, 7, (size_t)bytes);
  for (int round = 0; round < rounds && used + 24 < sizeof reply; round++) {
    uint64_t begun = now_ns();
    int64_t done = gets ? dunlin_state_get(key, strlen(key), value, (size_t)bytes)
                        : dunlin_set(key, value, (size_t)bytes);
    uint64_t took = now_ns() - begun;
    if (gets ? done != bytes : done < 0) return 1;
    used += (size_t)snprintf(reply + used, sizeof reply - used, "%llu\n", (unsigned long long)took);
  }
  dunlin_output_write(reply, (int32_t)used);
  return 0;
}
