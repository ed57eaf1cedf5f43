/* Guests whose initialisation fails, each in its way. */
#include "dunlin.h"

DUNLIN_INIT init(void) {
#if defined FAULTS
  volatile uint64_t address = 16;
  *(volatile int *)address = 1;
#elif defined RETURNS
  return 5;
#elif defined LOOPS
  for (volatile int i = 0;; i++) {
  }
#elif defined ASKS
  /* There is no platform at deploy: this says so by its code. */
  return dunlin_state_set("k", 1, "v", 1) == DUNLIN_E_UNAVAILABLE ? 9 : 0;
#endif
  return 0;
}

DUNLIN_HANDLE handle(void) { return 0; }
