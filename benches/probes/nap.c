/* A function that takes a while, and does nothing in it. */
#define _POSIX_C_SOURCE 200809L
#include <dunlin.h>
#include <time.h>

DUNLIN_HANDLE handle(void) {
  struct timespec time = {.tv_nsec = 30000000};
  return nanosleep(&time, NULL) == 0 ? 0 : 1;
}
