/* The guests of the conformance suite as Linux programs: one for each macro. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int echo(void) {
  static char piece[65536];
  ssize_t count;
  while ((count = read(0, piece, sizeof piece)) > 0)
    if (write(1, piece, (size_t)count) != count) return 1;
  return 0;
}

#if defined ECHO
int main(void) { return echo(); }

#elif defined COUNTER
static volatile int count;
int main(void) { return printf("%d", ++count) < 0; }

#elif defined CANARY
static volatile uint64_t data = 5, zeros[4096];
/* What lies below the stack pointer now is what the last call left there. */
static __attribute__((noinline)) int stack_is_clean(void) {
  volatile uint64_t below[20000];
  int clean = 1;
  for (int i = 0; i < 20000; i++) clean &= below[i] != 0x5a5a5a5a5a5a5a5a;
  for (int i = 0; i < 20000; i++) below[i] = 0x5a5a5a5a5a5a5a5a;
  return clean;
}
int main(void) {
  int clean = stack_is_clean() && data == 5;
  for (int i = 0; i < 4096; i++) clean &= zeros[i] == 0;
  for (int i = 0; i < 4096; i++) zeros[i] = 9;
  data = 6;
  uint64_t *more = malloc(1 << 20);
  for (int i = 0; i < 1 << 17; i += 512) clean &= more[i] == 0;
  for (int i = 0; i < 1 << 17; i += 512) more[i] = 1;
  FILE *left = fopen("/tmp/left", "r");
  clean &= left == NULL;
  left = fopen("/tmp/left", "w");
  clean &= left != NULL && fputs("something", left) >= 0 && fclose(left) == 0;
  return fputs(clean ? "clean" : "dirty", stdout) < 0;
}

#elif defined TRAP
int main(void) { __builtin_trap(); }

#elif defined LOOP
int main(void) {
  for (volatile uint64_t i = 0;; i++) {
  }
}

#elif defined RECURSION
static __attribute__((noinline)) int deeper(volatile int depth) { return deeper(depth + 1) + depth; }
int main(void) { return deeper(0); }

#elif defined HOG
int main(void) {
  for (;;) {
    char *more = malloc(64 << 10);
    if (more == NULL) abort();
    memset(more, 1, 64 << 10);
  }
}

#elif defined GROW
int main(void) {
  char *before = sbrk(0), *more = sbrk(1 << 20);
  if (more == (void *)-1) return 1;
  for (int at = 0; at < 1 << 20; at += 4096) more[at] = 1;
  return printf("%lu", (unsigned long)before) < 0;
}

#elif defined EXIT
int main(void) { return 7; }

#elif defined FLOOD
int main(void) {
  static char bytes[4096];
  for (int i = 0; i < 1024; i++) fwrite(bytes, 1, sizeof bytes, stdout);
  return 0;
}

#elif defined LOGS
int main(void) {
  for (int i = 0; i < 4096; i++) fputs("sixteen bytes or so", stderr);
  return 0;
}

#elif defined DIRTY
static char pages[400 << 12];
int main(void) {
  for (size_t i = 0; i < sizeof pages; i += 4096) {
    if (pages[i] != 0) return 1;
    pages[i] = 1;
  }
  return echo();
}

#elif defined WAIT
int main(void) {
  struct timespec long_time = {100, 0};
  return nanosleep(&long_time, NULL) < 0;
}
#endif
