/* Replies with its input. */
#include "dunlin.h"

DUNLIN_HANDLE handle(void) {
  size_t length;
  char *body = dunlin_input(&length);
  return body == NULL ? 1 : dunlin_output_write(body, (int32_t)length);
}
