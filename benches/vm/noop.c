/* Does nothing. */
#include "dunlin.h"

DUNLIN_HANDLE handle(void) { return 0; }
