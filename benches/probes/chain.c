/* What a call of the function that the input names costs, measured by the caller: nanoseconds, one a
 * line. */
#define _POSIX_C_SOURCE 200809L
#include <dunlin.h>
#include <stdio.h>
#include <time.h>

enum { WARM = 200, CALLS = 2000 };

static char reply[1 << 16];

static uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

DUNLIN_HANDLE handle(void) {
  size_t used = 0, length;
  const char *name = dunlin_input(&length);
  if (name == NULL) return 1;
  for (int at = 0; at < WARM + CALLS; at++) {
    uint64_t begun = now_ns();
    int64_t call = dunlin_chain_call(name, length, "", 0);
    if (call < 0 || dunlin_chain_size((uint32_t)call) < 0) return 1;
    uint64_t taken = now_ns() - begun;
    dunlin_chain_close((uint32_t)call);
    if (at >= WARM) {
      used += (size_t)snprintf(reply + used, sizeof reply - used, "%llu\n",
                               (unsigned long long)taken);
    }
  }
  dunlin_output_write(reply, (int32_t)used);
  return 0;
}
