// Tells what a request's body is, by the network of model.h: the reply is a label and how sure the
// network is of it, as "png 0.9987". Bodies that are too short for the network are "txt" or
// "unknown". Error codes: 1 the weights are not in state, 2 they are not this network's, 3 no memory.
#include <dunlin.h>
#include <stdio.h>

#include "model.h"
#include "reply.h"

enum { NO_WEIGHTS = 1, OTHER_WEIGHTS = 2, NO_MEMORY = 3 };

static struct model model;

DUNLIN_HANDLE handle(void) {
  const char key[] = "file-type/weights";
  char reply[REPLY_BYTES_MAX];
  size_t length;
  const char *body = dunlin_input(&length);
  if (body == NULL) return NO_MEMORY;
  // Mapped, not copied: every sandbox reads the same memory.
  const struct weights *weights =
      (const struct weights *)dunlin_map(key, 0, sizeof *weights, DUNLIN_READ, NULL);
  if (weights == NULL) return NO_WEIGHTS;
  if (!are_weights(weights)) return OTHER_WEIGHTS;
  size_t said = answer(&model, weights, (const uint8_t *)body, length, reply);
  return dunlin_output_write(reply, said) < 0 ? NO_MEMORY : 0;
}
