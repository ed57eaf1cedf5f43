/* A native worker for the bench `inference`: the network of examples/file-type, with weights of its
 * own that it reads when it starts.
 *
 * usage: inference WEIGHTS
 *
 * Each request on standard input and each reply on standard output is its length, as a 32-bit
 * number in the machine's byte order, and its bytes. */
#include <stdio.h>

#include "reply.h"

static struct weights weights __attribute__((aligned(64)));
static struct model model;

static int fail(const char *why) {
  fprintf(stderr, "inference: %s\n", why);
  return 1;
}

int main(int count, char **words) {
  FILE *file = count == 2 ? fopen(words[1], "rb") : NULL;
  if (file == NULL) return fail("usage: inference WEIGHTS");
  size_t read = fread(&weights, 1, sizeof weights, file);
  fclose(file);
  if (read != sizeof weights || !are_weights(&weights)) return fail("these are no weights");
  uint8_t *bytes = NULL;
  uint32_t length, room = 0;
  while (fread(&length, sizeof length, 1, stdin) == 1) {
    if (length > room) bytes = (uint8_t *)realloc(bytes, room = length);
    if (length > 0 && (bytes == NULL || fread(bytes, length, 1, stdin) != 1)) {
      return fail("a request breaks off");
    }
    char reply[REPLY_BYTES_MAX];
    uint32_t said = (uint32_t)answer(&model, &weights, bytes, length, reply);
    fwrite(&said, sizeof said, 1, stdout);
    fwrite(reply, said, 1, stdout);
    if (fflush(stdout) != 0) return fail("nobody reads the reply");
  }
  return 0;
}
