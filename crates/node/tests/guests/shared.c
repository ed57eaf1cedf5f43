/* A guest for either wall: its first byte says what it does. */
#include "dunlin.h"

static int32_t say(int64_t number) {
  return dunlin_output_write(&number, sizeof number);
}

static uint64_t calls;

DUNLIN_HANDLE handle(void) {
  size_t length;
  char *body = dunlin_input(&length);
  if (body == NULL || length == 0) return 2;
  calls++;
  switch (body[0]) {
    case 'e': /* echo */
      return dunlin_output_write(body + 1, (int32_t)length - 1);
    case 'n': /* how often this memory was called */
      return say((int64_t)calls);
    case 's': /* set */
      return say(dunlin_state_set("key", 3, body + 1, length - 1));
    case 'g': { /* get */
      char *value;
      int64_t size = dunlin_get("key", &value);
      return size < 0 ? say(size) : dunlin_output_write(value, (int32_t)size);
    }
    case 'm': { /* map, add one to the first word, and say what it was */
      int64_t error;
      uint64_t *at = dunlin_map("mapped", 0, 65536, DUNLIN_WRITE, &error);
      return at == NULL ? say(error) : say((int64_t)at[0]++);
    }
    case 'w': { /* map to read, and write all the same */
      int64_t error;
      uint64_t *at = dunlin_map("mapped", 0, 65536, DUNLIN_READ, &error);
      if (at == NULL) return say(error);
      at[0] = 99;
      return 0;
    }
    case 'c': { /* call another function */
      struct dunlin_reply reply;
      int64_t done = dunlin_call("other", body + 1, length - 1, &reply);
      if (done < 0) return say(done);
      return dunlin_output_write(reply.data, (int32_t)reply.length);
    }
#ifndef __wasm__
    case 'r': /* random bytes and the time */
      dunlin_output_write(dunlin_vm_random(), 32);
      return say((int64_t)dunlin_vm_now_ns());
#endif
    case 'l': /* a line of log, then a fault at address 8 */
      dunlin_log_write(DUNLIN_INFO, "before the fault", 16);
      *(volatile int *)8 = 1;
      return 0;
    default:
      return 3;
  }
}
