/* The reply to a file, for the function and for what it is measured against. */
#ifndef FILE_TYPE_REPLY_H
#define FILE_TYPE_REPLY_H

#include <stdio.h>

#include "model.h"

enum { REPLY_BYTES_MAX = 64 };

/* Whether bytes are well-formed UTF-8. */
static inline int is_utf8(const uint8_t *bytes, size_t length) {
  for (size_t at = 0; at < length;) {
    uint8_t first = bytes[at++];
    int more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    uint32_t code = more == 0 ? first : first & (0x3fu >> more);
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    if ((first >= 0x80 && first < 0xc0) || first > 0xf7) return 0;
    for (int left = more; left > 0; left--) {
      if (at == length || (bytes[at] & 0xc0) != 0x80) return 0;
      code = code << 6 | (bytes[at++] & 0x3fu);
    }
    if (code < least[more] || code > 0x10ffff || (code >> 11) == 0x1b) return 0;
  }
  return 1;
}

/* Writes the reply to a file's bytes; gives its length. */
static inline size_t answer(struct model *model, const struct weights *weights,
                            const uint8_t *bytes, size_t length, char reply[REPLY_BYTES_MAX]) {
  const char *label;
  float score = 1;
  if (read_input(model, bytes, length)) {
    int best = infer(model, weights);
    label = weights->labels[best];
    score = model->scores[best];
  } else {
    label = is_utf8(bytes, length) ? "txt" : "unknown";
  }
  return (size_t)snprintf(reply, REPLY_BYTES_MAX, "%.*s %.4f\n", LABEL_BYTES, label, score);
}

#endif
