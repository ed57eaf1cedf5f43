/* Computes a digest of 32 MiB, a page at a time, so that nothing but the processor is measured. The same source is a
 * native program and a guest. */
#ifdef NATIVE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#else
#include "dunlin.h"
#endif

#include "../../examples/sha256-vm/sha256.h"

static uint8_t page[4096];

static __attribute__((noinline)) void compute(uint8_t digest[32]) {
  for (int i = 0; i < 8192; i++) {
    sha256(page, sizeof page, digest);
    memcpy(page + 32 * (i % 128), digest, 32);
  }
}

#ifdef NATIVE
int main(void) {
  uint8_t digest[32];
  struct timespec begun, ended;
  clock_gettime(CLOCK_MONOTONIC, &begun);
  compute(digest);
  clock_gettime(CLOCK_MONOTONIC, &ended);
  double us = (ended.tv_sec - begun.tv_sec) * 1e6 + (ended.tv_nsec - begun.tv_nsec) / 1e3;
  printf("%f ", us);
  for (int i = 0; i < 32; i++) printf("%02x", digest[i]);
  return 0;
}
#else
DUNLIN_HANDLE handle(void) {
  uint8_t digest[32];
  compute(digest);
  return dunlin_output_write(digest, sizeof digest);
}
#endif
