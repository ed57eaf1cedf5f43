/* The guests of the conformance suite: one for each value of GUEST. */
#include "dunlin.h"

static void reply_number(uint64_t number) {
  char text[20];
  int at = sizeof text;
  do {
    text[--at] = (char)('0' + number % 10);
    number /= 10;
  } while (number > 0);
  dunlin_output_write(text + at, (int32_t)(sizeof text - at));
}

static void echo(void) {
  size_t length;
  char *body = dunlin_input(&length);
  if (body == NULL) __builtin_trap();
  dunlin_output_write(body, (int32_t)length);
}

#if defined ECHO
DUNLIN_HANDLE handle(void) {
  echo();
  return 0;
}

#elif defined COUNTER
static volatile int count;
DUNLIN_HANDLE handle(void) {
  reply_number((uint64_t)++count);
  return 0;
}

#elif defined CANARY
static volatile uint64_t data = 5, zeros[4096];
static uint64_t *heap;
DUNLIN_INIT init(void) {
  heap = malloc(8192);
  heap[1000] = 7;
  return 0;
}
/* What lies below the stack pointer now is what the last call left there. */
static __attribute__((noinline)) int stack_is_clean(void) {
  volatile uint64_t below[2000];
  int clean = 1;
  for (int i = 0; i < 2000; i++) clean &= below[i] != 0x5a5a5a5a5a5a5a5a;
  for (int i = 0; i < 2000; i++) below[i] = 0x5a5a5a5a5a5a5a5a;
  return clean;
}
static int vectors_are_clean(void) {
  uint64_t low;
  __asm__ volatile("movq %%xmm15, %0" : "=r"(low));
  int clean = low != 0x77;
  low = 0x77;
  __asm__ volatile("movq %0, %%xmm15" : : "r"(low) : "xmm15");
  return clean;
}
DUNLIN_HANDLE handle(void) {
  int clean = vectors_are_clean() && stack_is_clean() && data == 5 && heap[1000] == 7;
  for (int i = 0; i < 4096; i++) clean &= zeros[i] == 0;
  uint64_t *more = malloc(1 << 20);
  for (int i = 0; i < 1 << 17; i += 512) clean &= more[i] == 0;
  for (int i = 0; i < 1 << 17; i += 512) more[i] = 1;
  for (int i = 0; i < 4096; i++) zeros[i] = 9;
  data = 6;
  heap[1000] = 8;
  dunlin_output_write(clean ? "clean" : "dirty", 5);
  return 0;
}

#elif defined TRAP
DUNLIN_HANDLE handle(void) { __builtin_trap(); }

#elif defined LOOP
DUNLIN_HANDLE handle(void) {
  for (volatile uint64_t i = 0;; i++) {
  }
}

#elif defined RECURSION
static __attribute__((noinline)) int deeper(volatile int depth) { return deeper(depth + 1) + depth; }
DUNLIN_HANDLE handle(void) { return deeper(0); }

#elif defined HOG
DUNLIN_HANDLE handle(void) {
  for (;;) {
    char *end = dunlin_vm_grow(64 << 10);
    if (end == NULL) __builtin_trap();
    end[-1] = 1;
  }
}

#elif defined GROW
DUNLIN_HANDLE handle(void) {
  char *before = dunlin_vm_grow(0), *end = dunlin_vm_grow(1 << 20);
  if (end == NULL) return 1;
  reply_number((uint64_t)before);
  for (char *at = before; at < end; at += 4096) *at = 1;
  return 0;
}

#elif defined EXIT
DUNLIN_HANDLE handle(void) { dunlin_vm_exit(7); }

#elif defined FLOOD
DUNLIN_HANDLE handle(void) {
  static char bytes[4096];
  for (int i = 0; i < 1024; i++) dunlin_output_write(bytes, sizeof bytes);
  return 0;
}

#elif defined LOGS
DUNLIN_HANDLE handle(void) {
  for (int i = 0; i < 4096; i++) dunlin_log_write(DUNLIN_INFO, "sixteen bytes or so", 19);
  return 0;
}

#elif defined DIRTY
static char pages[400 << 12];
DUNLIN_HANDLE handle(void) {
  for (size_t i = 0; i < sizeof pages; i += 4096) {
    if (pages[i] != 0) return 1;
    pages[i] = 1;
  }
  echo();
  return 0;
}
#endif
