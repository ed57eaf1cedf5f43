/* Writes to 64 pages. */
#include "dunlin.h"

static volatile char pages[64 << 12];

DUNLIN_HANDLE handle(void) {
  for (size_t i = 0; i < sizeof pages; i += 4096) pages[i] = 1;
  return 0;
}
