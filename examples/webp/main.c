// Encodes pictures: the request's body is a PPM (P6) or PGM (P5) file, the reply is WebP.
//
// A comment line "# quality N" (0 to 100) in the picture's header sets the quality, 80 unless told;
// "# lossless" asks for lossless WebP. Error codes: 1 not such a picture, 2 too large, 3 encoder
// or memory failure, 4 the reply is over the output limit.
#include <dunlin.h>
#include <stdio.h>
#include <string.h>
#include <webp/encode.h>

enum { NOT_A_PICTURE = 1, TOO_LARGE = 2, ENCODER_FAILED = 3, REPLY_TOO_LARGE = 4 };

struct picture {
  const uint8_t *pixels;
  int width, height, channels;
  float quality;
  int lossless;
};

struct cursor {
  const char *at, *end;
};

// A comment runs to the end of its line and may carry an option for the encoder.
static void read_comment(struct cursor *header, struct picture *picture) {
  const char *line_end = memchr(header->at, '\n', (size_t)(header->end - header->at));
  if (line_end == NULL) line_end = header->end;
  char line[64] = {0};
  size_t length = (size_t)(line_end - header->at);
  memcpy(line, header->at, length < sizeof line ? length : sizeof line - 1);
  int quality;
  if (sscanf(line, "# quality %d", &quality) == 1 && quality >= 0 && quality <= 100)
    picture->quality = (float)quality;
  if (strncmp(line, "# lossless", 10) == 0) picture->lossless = 1;
  header->at = line_end;
}

// The next number of the header, or -1. No number of a header that we take has over 5 digits.
static int read_number(struct cursor *header, struct picture *picture) {
  while (header->at < header->end) {
    char c = *header->at;
    if (c == '#') read_comment(header, picture);
    else if (c == ' ' || c == '\t' || c == '\r' || c == '\n') header->at++;
    else break;
  }
  int value = 0, digits = 0;
  for (; header->at < header->end && *header->at >= '0' && *header->at <= '9'; header->at++) {
    if (++digits > 5) return -1;
    value = value * 10 + (*header->at - '0');
  }
  return digits > 0 ? value : -1;
}

static int parse(const char *body, size_t length, struct picture *picture) {
  if (length < 3 || body[0] != 'P' || (body[1] != '5' && body[1] != '6')) return NOT_A_PICTURE;
  struct cursor header = {body + 2, body + length};
  *picture = (struct picture){.channels = body[1] == '6' ? 3 : 1, .quality = 80};
  picture->width = read_number(&header, picture);
  picture->height = read_number(&header, picture);
  int brightest = read_number(&header, picture);
  if (picture->width <= 0 || picture->height <= 0 || brightest != 255) return NOT_A_PICTURE;
  if (picture->width > WEBP_MAX_DIMENSION || picture->height > WEBP_MAX_DIMENSION) return TOO_LARGE;
  if (header.end - header.at < 1) return NOT_A_PICTURE;
  picture->pixels = (const uint8_t *)header.at + 1;
  uint64_t wanted = (uint64_t)picture->width * (uint64_t)picture->height * picture->channels;
  return (uint64_t)(header.end - header.at - 1) < wanted ? NOT_A_PICTURE : 0;
}

static int import_pixels(WebPPicture *to, const struct picture *from) {
  if (from->channels == 3) return WebPPictureImportRGB(to, from->pixels, from->width * 3);
  size_t count = (size_t)from->width * (size_t)from->height;
  uint8_t *colours = malloc(count * 3);
  if (colours == NULL) return 0;
  for (size_t i = 0; i < count; i++) memset(colours + 3 * i, from->pixels[i], 3);
  int done = WebPPictureImportRGB(to, colours, from->width * 3);
  free(colours);
  return done;
}

static int encode(const struct picture *picture, WebPMemoryWriter *writer) {
  WebPConfig config;
  WebPPicture input;
  if (!WebPConfigInit(&config) || !WebPPictureInit(&input)) return ENCODER_FAILED;
  config.quality = picture->quality;
  config.lossless = picture->lossless;
  input.use_argb = picture->lossless;
  input.width = picture->width;
  input.height = picture->height;
  input.writer = WebPMemoryWrite;
  input.custom_ptr = writer;
  int done = import_pixels(&input, picture) && WebPEncode(&config, &input);
  WebPPictureFree(&input);
  return done ? 0 : ENCODER_FAILED;
}

// One tiny picture each way fills the encoder's tables, so that no invocation has to.
DUNLIN_INIT init(void) {
  static const uint8_t pixels[16 * 16 * 3];
  struct picture tiny = {pixels, 16, 16, 3, 80, 0};
  for (tiny.lossless = 0; tiny.lossless <= 1; tiny.lossless++) {
    WebPMemoryWriter writer;
    WebPMemoryWriterInit(&writer);
    int failure = encode(&tiny, &writer);
    WebPMemoryWriterClear(&writer);
    if (failure) return failure;
  }
  return 0;
}

DUNLIN_HANDLE handle(void) {
  size_t length;
  char *body = dunlin_input(&length);
  if (body == NULL) return ENCODER_FAILED;
  struct picture picture;
  int failure = parse(body, length, &picture);
  if (failure) return failure;
  WebPMemoryWriter writer;
  WebPMemoryWriterInit(&writer);
  failure = encode(&picture, &writer);
  if (failure) return failure;
  char line[96];
  int used = snprintf(line, sizeof line, "%dx%d: %zu bytes in, %zu bytes out", picture.width,
                      picture.height, length, writer.size);
  dunlin_log_write(DUNLIN_INFO, line, used);
  return dunlin_output_write(writer.mem, (int32_t)writer.size) == 0 ? 0 : REPLY_TOO_LARGE;
}
