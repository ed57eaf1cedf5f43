// memcpy: N thousand copies of 4 KiB to 64 KiB between unaligned places of a 1 MiB arena.
// usage: memcpy [N]
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HALF = 512 * 1024, SMALLEST = 4 * 1024, LARGEST = 64 * 1024 };

int main(int argc, char **argv) {
  int thousands = argc > 1 ? atoi(argv[1]) : 1500;
  if (thousands < 1 || thousands > 1000000) return 2;
  uint8_t *arena = malloc(2 * HALF);
  if (arena == NULL) return 1;
  for (int i = 0; i < 2 * HALF; i++) arena[i] = (uint8_t)((uint32_t)i * 2654435761u >> 24);
  uint64_t random = 88172645463325252u;
  for (long copy = 0; copy < thousands * 1000L; copy++) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    size_t length = SMALLEST + (size_t)(random >> 48) % (LARGEST - SMALLEST);
    size_t from = (size_t)(random & 0xffffff) % (HALF - LARGEST);
    size_t to = (size_t)(random >> 24 & 0xffffff) % (HALF - LARGEST);
    // From one half to the other and back by turns, so that the parts never overlap.
    uint8_t *source = arena + (copy & 1 ? HALF : 0), *target = arena + (copy & 1 ? 0 : HALF);
    memcpy(target + to, source + from, length);
  }
  uint64_t sum = 0;
  for (int i = 0; i < 2 * HALF; i++) sum = sum * 31 + arena[i];
  printf("%016llx\n", (unsigned long long)sum);
  return 0;
}
