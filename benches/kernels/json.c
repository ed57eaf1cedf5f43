// json: parses a document of about 1 MiB into a tree, N times, with our own recursive-descent parser.
// usage: json [N]
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { NOTHING, TRUTH, NUMBER, STRING, ARRAY, OBJECT };

// A value; the children of an array or object are a list, and those of an object have names.
struct value {
  enum kind kind;
  double number;
  const char *text, *name;
  uint32_t text_length, name_length;
  struct value *first, *next;
};

// Values and unescaped strings are carved from here, and all dropped together.
struct arena {
  char *memory;
  size_t used, size, pieces;
};

// The text ends in a zero byte, which belongs to no class and so ends every run.
struct parser {
  const char *at;
  struct arena *arena;
  int depth;
};

enum { DEPTH_MAX = 64, RECORDS = 6000 };

// What a byte may be part of: white space, a number's digits, the plain run of a string.
enum { SPACE = 1, DIGIT = 2, PLAIN = 4 };
static uint8_t classes[256];

static void fill_classes(void) {
  for (int byte = 1; byte < 256; byte++) classes[byte] = byte == '"' || byte == '\\' ? 0 : PLAIN;
  for (const char *space = " \t\r\n"; *space; space++) classes[(uint8_t)*space] |= SPACE;
  for (int digit = '0'; digit <= '9'; digit++) classes[digit] |= DIGIT;
}

// The first byte from `at` on that is not of the class.
static const char *run(const char *at, uint8_t class) {
  while (classes[(uint8_t)*at] & class) at++;
  return at;
}

static void *carve(struct arena *arena, size_t bytes) {
  bytes = (bytes + 7) & ~(size_t)7;
  if (arena->size - arena->used < bytes) return NULL;
  void *place = arena->memory + arena->used;
  arena->used += bytes;
  arena->pieces++;
  return place;
}

static bool take(struct parser *p, char wanted) {
  p->at = run(p->at, SPACE);
  if (*p->at != wanted) return false;
  p->at++;
  return true;
}

// `word` at the parser's place; strncmp stops at the text's end.
static bool take_word(struct parser *p, const char *word, size_t length) {
  if (strncmp(p->at, word, length) != 0) return false;
  p->at += length;
  return true;
}

// One escape after its backslash, as UTF-8; NULL when it is none. Surrogates stay single here.
static char *unescape(struct parser *p, char *out) {
  char c = *p->at++;
  switch (c) {
    case '"': case '\\': case '/': *out++ = c; return out;
    case 'b': *out++ = '\b'; return out;
    case 'f': *out++ = '\f'; return out;
    case 'n': *out++ = '\n'; return out;
    case 'r': *out++ = '\r'; return out;
    case 't': *out++ = '\t'; return out;
    case 'u': break;
    default: return NULL;
  }
  uint32_t point = 0;
  for (int i = 0; i < 4; i++) {
    char digit = *p->at++;
    if (digit >= '0' && digit <= '9') point = point * 16 + (uint32_t)(digit - '0');
    else if (digit >= 'a' && digit <= 'f') point = point * 16 + (uint32_t)(digit - 'a' + 10);
    else return NULL;
  }
  if (point >= 0x800) {
    *out++ = (char)(0xe0 | point >> 12);
    *out++ = (char)(0x80 | (point >> 6 & 0x3f));
    *out++ = (char)(0x80 | (point & 0x3f));
  } else if (point >= 0x80) {
    *out++ = (char)(0xc0 | point >> 6);
    *out++ = (char)(0x80 | (point & 0x3f));
  } else {
    *out++ = (char)point;
  }
  return out;
}

// The rest of a string whose first backslash is at `p->at`, unescaped into the arena.
static bool parse_escaped(struct parser *p, const char *start, const char **text, uint32_t *length) {
  const char *close = p->at;
  while (*(close = run(close, PLAIN)) == '\\') close += close[1] ? 2 : 1;
  if (*close != '"') return false;
  char *copy = carve(p->arena, (size_t)(close - start)), *out = copy;
  if (copy == NULL) return false;
  while (start < close && out != NULL) {
    for (; start < p->at; start++) *out++ = *start;
    if (*start != '\\') break;
    p->at++;
    out = unescape(p, out);
    start = p->at;
    p->at = run(start, PLAIN);
  }
  if (out == NULL) return false;
  p->at = close + 1;
  *text = copy;
  *length = (uint32_t)(out - copy);
  return true;
}

static bool parse_string(struct parser *p, const char **text, uint32_t *length) {
  if (!take(p, '"')) return false;
  const char *start = p->at, *at = run(start, PLAIN);
  p->at = at;
  if (*at == '\\') return parse_escaped(p, start, text, length);
  if (*at != '"') return false;
  *text = start;
  *length = (uint32_t)(at - start);
  p->at = at + 1;
  return true;
}

// Digits appended to `value`, of which the first 18 or so count; gives the place after them.
static const char *parse_digits(const char *at, uint64_t *value) {
  uint64_t read = *value;
  for (; classes[(uint8_t)*at] & DIGIT; at++)
    if (read < UINT64_MAX / 20) read = read * 10 + (uint64_t)(*at - '0');
  *value = read;
  return at;
}

static bool parse_number(struct parser *p, double *number) {
  const char *at = p->at;
  bool negative = *at == '-';
  if (negative) at++;
  uint64_t digits = 0;
  const char *whole = at;
  at = parse_digits(at, &digits);
  if (at == whole) return false;
  int exponent = 0;
  if (*at == '.') {
    const char *fraction = ++at;
    at = parse_digits(at, &digits);
    exponent = (int)(fraction - at);
  }
  if (*at == 'e' || *at == 'E') {
    at++;
    bool small = *at == '-';
    if (*at == '-' || *at == '+') at++;
    uint64_t written = 0;
    at = parse_digits(at, &written);
    if (written > 400) written = 400;
    exponent += small ? -(int)written : (int)written;
  }
  double value = (double)digits;
  for (; exponent > 0; exponent--) value *= 10;
  for (; exponent < 0; exponent++) value /= 10;
  p->at = at;
  *number = negative ? -value : value;
  return true;
}

static struct value *parse_value(struct parser *p);

static bool parse_children(struct parser *p, struct value *parent, char close) {
  if (take(p, close)) return true;
  struct value **link = &parent->first;
  do {
    const char *name = NULL;
    uint32_t name_length = 0;
    if (close == '}' && !(parse_string(p, &name, &name_length) && take(p, ':'))) return false;
    struct value *child = parse_value(p);
    if (child == NULL) return false;
    child->name = name;
    child->name_length = name_length;
    *link = child;
    link = &child->next;
  } while (take(p, ','));
  return take(p, close);
}

static struct value *parse_value(struct parser *p) {
  struct value *value = carve(p->arena, sizeof *value);
  if (value == NULL || p->depth >= DEPTH_MAX) return NULL;
  p->at = run(p->at, SPACE);
  *value = (struct value){0};
  bool good;
  p->depth++;
  switch (*p->at) {
    case '{': value->kind = OBJECT, p->at++, good = parse_children(p, value, '}'); break;
    case '[': value->kind = ARRAY, p->at++, good = parse_children(p, value, ']'); break;
    case '"': value->kind = STRING, good = parse_string(p, &value->text, &value->text_length); break;
    case 't': value->kind = TRUTH, value->number = 1, good = take_word(p, "true", 4); break;
    case 'f': value->kind = TRUTH, good = take_word(p, "false", 5); break;
    case 'n': good = take_word(p, "null", 4); break;
    default: value->kind = NUMBER, good = parse_number(p, &value->number);
  }
  p->depth--;
  return good ? value : NULL;
}

// What the tree holds, folded to one number that depends on every kind, number and text.
static uint64_t fold(const struct value *value, uint64_t sum) {
  for (; value != NULL; value = value->next) {
    sum = sum * 31 + (uint64_t)value->kind;
    sum = sum * 31 + (uint64_t)(int64_t)(value->number * 1000);
    for (uint32_t i = 0; i < value->text_length; i++) sum = sum * 31 + (uint8_t)value->text[i];
    for (uint32_t i = 0; i < value->name_length; i++) sum = sum * 31 + (uint8_t)value->name[i];
    sum = fold(value->first, sum);
  }
  return sum;
}

static void write_document(char *to, size_t size) {
  size_t used = (size_t)snprintf(to, size, "{\"records\": [");
  uint64_t random = 88172645463325252u;
  for (int i = 0; i < RECORDS; i++) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    unsigned part = (unsigned)(random >> 40);
    used += (size_t)snprintf(
        to + used, size - used,
        "%s\n  {\"id\": %d, \"name\": \"bird-%x\", \"note\": \"said \\\"%u\\\" at caf\\u00e9\\n\", "
        "\"place\": {\"x\": %u.%03u, \"y\": -%u.5e-2}, \"tags\": [\"a%u\", true, null, false, %u]}",
        i ? "," : "", i, part, part % 977, part % 360, part % 1000, part % 90, part % 7, part);
  }
  snprintf(to + used, size - used, "\n]}\n");
}

int main(int argc, char **argv) {
  int times = argc > 1 ? atoi(argv[1]) : 900;
  if (times < 1 || times > 1000000) return 2;
  size_t room = (size_t)RECORDS * 256 + 64;
  char *document = malloc(room);
  struct arena arena = {malloc(16 << 20), 0, 16 << 20, 0};
  if (document == NULL || arena.memory == NULL) return 1;
  write_document(document, room);
  fill_classes();
  uint64_t sum = 0;
  for (int i = 0; i < times; i++) {
    arena.used = 0;
    struct parser parser = {document, &arena, 0};
    struct value *root = parse_value(&parser);
    if (root == NULL) return 1;
    // The whole tree is folded once; the other turns count its pieces alone.
    sum = i == 0 ? fold(root, 1) : sum * 31 + arena.pieces;
  }
  printf("%016llx\n", (unsigned long long)sum);
  return 0;
}
