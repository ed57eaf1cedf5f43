/* The neural network `standard_v1` of Google's magika 0.5.1, which tells a file's type from 1,536 of
 * its bytes, for Wasm and for native code.
 *
 *   bytes ─▶ row of a table each ─▶ 4 rows are a position: 384 × 512 ─▶ layer norm over positions
 *         ─▶ dense 512 → 256, GELU ─▶ dense 256 → 256, GELU ─▶ greatest over positions
 *         ─▶ layer norm ─▶ dense 256 → 113 ─▶ softmax
 *
 * Weights are where `struct weights` lies: state that is mapped, or a file that was read. Two things
 * spare work and change nothing but the order of sums. A position's input to the first dense layer
 * is made of 4 rows, and equal bytes have equal rows, so that each byte that occurs is multiplied
 * once for each of the 4 places. And GELU first falls, then rises: its greatest value over many
 * numbers is at their greatest or their least. */
#ifndef FILE_TYPE_MODEL_H
#define FILE_TYPE_MODEL_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
  TOKENS = 257,
  PADDING = 256,
  PART = 512,
  INPUT = 3 * PART,
  /* Bytes at a file's start and end in which space is not looked at. */
  BLOCK = 4096,
  /* Files with fewer bytes, but for space around them, are too short for the network. */
  BYTES_MIN = 16,
  EMBEDDED = 128,
  PLACES = 4,
  POSITIONS = INPUT / PLACES,
  HIDDEN = 256,
  LABELS = 113,
  LABELS_PADDED = 128,
  LABEL_BYTES = 24,
  PANEL = 16,
};

/* The file that convert.py writes. */
struct weights {
  char magic[8];
  uint32_t labels_count;
  char unused[52];
  float table[TOKENS][EMBEDDED];
  float scale[POSITIONS], shift[POSITIONS];
  float first[HIDDEN / PANEL][PLACES][EMBEDDED][PANEL];
  float first_sums[HIDDEN], first_bias[HIDDEN];
  float second[HIDDEN / PANEL][HIDDEN][PANEL];
  float second_bias[HIDDEN];
  float last_scale[HIDDEN], last_shift[HIDDEN];
  float last[HIDDEN][LABELS_PADDED], last_bias[LABELS_PADDED];
  char labels[LABELS][LABEL_BYTES];
};

/* What the network says, and what it worked with; too big for a stack. */
struct model {
  uint16_t input[INPUT];
  /* The bytes that occur at a place, and each byte's number among them. */
  uint16_t occurring[TOKENS], number[TOKENS];
  float rows[TOKENS + 8][EMBEDDED] __attribute__((aligned(64)));
  float products[TOKENS + 8][HIDDEN] __attribute__((aligned(64)));
  float hidden[POSITIONS][HIDDEN] __attribute__((aligned(64)));
  float scores[LABELS_PADDED] __attribute__((aligned(64)));
};

/* A few numbers that are worked on at once: as many as a register holds. */
#ifdef __AVX__
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float lanes __attribute__((vector_size(LANES * 4), may_alias));
typedef int32_t ints __attribute__((vector_size(LANES * 4), may_alias));

static inline lanes fused(lanes a, lanes b, lanes c) {
#ifdef __wasm_relaxed_simd__
  return __builtin_wasm_relaxed_madd_f32x4(a, b, c);
#else
  return a * b + c;
#endif
}

static inline lanes all(float value) {
  lanes out;
  for (int at = 0; at < LANES; at++) out[at] = value;
  return out;
}

static inline lanes load(const float *from) { return *(const lanes *)from; }

/* Where `take` is all ones a, else b. */
static inline lanes choose(ints take, lanes a, lanes b) {
  return (lanes)((take & (ints)a) | (~take & (ints)b));
}

static inline lanes lesser(lanes a, lanes b) { return choose(a < b, a, b); }
static inline lanes greater(lanes a, lanes b) { return choose(a > b, a, b); }

/* e to the -x, for x from 0 on; below 1e-38 it is about that. The exponent's whole part goes to the
 * bits of a float, the rest by the Taylor series of 2^x within half of 1. */
static inline lanes exp_of_minus(lanes x) {
  const lanes log2e = all(1.44269504f), half = all(0.5f);
  lanes power = greater(all(0) - x * log2e, all(-126));
  ints whole = __builtin_convertvector(power - half, ints);
  lanes rest = power - __builtin_convertvector(whole, lanes);
  lanes sum = all(1.5403530e-4f);
  sum = fused(sum, rest, all(1.3333558e-3f));
  sum = fused(sum, rest, all(9.6181291e-3f));
  sum = fused(sum, rest, all(5.5504109e-2f));
  sum = fused(sum, rest, all(2.4022651e-1f));
  sum = fused(sum, rest, all(6.9314718e-1f));
  sum = fused(sum, rest, all(1));
  return (lanes)((ints)sum + (whole << 23));
}

/* x times the normal distribution's share below x, with the error function as in Abramowitz and
 * Stegun, 7.1.26 (at most 1.5e-7 off). */
static inline lanes gelu(lanes x) {
  lanes negative = all(0) - x, size = greater(x, negative) * all(0.70710678f);
  lanes t = all(1) / fused(all(0.3275911f), size, all(1));
  lanes sum = all(1.061405429f);
  sum = fused(sum, t, all(-1.453152027f));
  sum = fused(sum, t, all(1.421413741f));
  sum = fused(sum, t, all(-0.284496736f));
  sum = fused(sum, t, all(0.254829592f));
  lanes tail = sum * t * exp_of_minus(size * size) * all(0.5f);
  return x * choose(x > all(0), all(1) - tail, tail);
}

/* Rows and columns of a product that are summed at once: 12 registers of sums. */
enum { ROWS = 6, COLUMNS = 2 * LANES };

/* The sums of ROWS rows of `left`, `length` long and `stride` apart, with COLUMNS columns of a
 * panel. */
static inline __attribute__((always_inline)) void multiply(lanes sums[ROWS][2], const float *left,
                                                           size_t stride, size_t length,
                                                           const float *panel) {
  for (int row = 0; row < ROWS; row++) sums[row][0] = sums[row][1] = all(0);
  for (const float *end = left + length; left != end; left += 2, panel += 2 * PANEL) {
    /* Two pointers move, and all that is read lies at fixed distances from them: left alone, the
     * compiler moves a pointer for each row. */
    __asm__("" : "+r"(left), "+r"(panel));
#pragma GCC unroll 2
    for (size_t step = 0; step < 2; step++) {
      lanes a = load(panel + step * PANEL), b = load(panel + step * PANEL + LANES);
#pragma GCC unroll 6
      for (int row = 0; row < ROWS; row++) {
        lanes value = all(left[(size_t)row * stride + step]);
        sums[row][0] = fused(value, a, sums[row][0]);
        sums[row][1] = fused(value, b, sums[row][1]);
      }
    }
  }
}

/* Space, as Python's bytes.strip() knows it. */
static inline int is_space(uint8_t byte) { return byte == ' ' || (byte >= 9 && byte <= 13); }

/* Puts `length` bytes in a part of the input, cut or padded at its sides: `after` of 2 sides get
 * padding and lose bytes at the end alone, at both, or at the start alone (2, 1, 0). */
static inline void take(uint16_t *part, const uint8_t *bytes, size_t length, int after) {
  size_t kept = length < PART ? length : PART, more = length - kept, room = PART - kept;
  size_t skipped = after == 2 ? 0 : after == 1 ? more / 2 : more;
  size_t before = after == 2 ? 0 : after == 1 ? room / 2 : room;
  for (size_t at = 0; at < PART; at++) part[at] = PADDING;
  for (size_t at = 0; at < kept; at++) part[before + at] = bytes[skipped + at];
}

/* Picks the bytes that the network sees: of the start, the middle and the end. Gives 0 where they
 * are too few for it. */
static inline int read_input(struct model *model, const uint8_t *bytes, size_t length) {
  size_t block = length < 2 * BLOCK + PART ? length : BLOCK, from = 0, to = length;
  while (from < block && is_space(bytes[from])) from++;
  while (to > length - block && to > from && is_space(bytes[to - 1])) to--;
  if (block == length) {
    take(model->input, bytes + from, to - from, 2);
    take(model->input + PART, bytes + from, to - from, 1);
    take(model->input + 2 * PART, bytes + from, to - from, 0);
  } else {
    size_t end = length - BLOCK;
    take(model->input, bytes + from, BLOCK - from, 2);
    take(model->input + PART, bytes + from + (to - from - PART) / 2, PART, 1);
    take(model->input + 2 * PART, bytes + end, to - end, 0);
  }
  return model->input[BYTES_MIN - 1] != PADDING;
}

/* Normalises the table's rows of the bytes that occur at a place over all positions; gives how many
 * occur. */
static inline uint32_t normalise(struct model *model, const struct weights *weights, int place) {
  uint32_t counts[TOKENS] = {0}, occurring = 0;
  for (int at = place; at < INPUT; at += PLACES) counts[model->input[at]]++;
  for (int token = 0; token < TOKENS; token++) {
    if (counts[token] == 0) continue;
    model->number[token] = (uint16_t)occurring;
    model->occurring[occurring++] = (uint16_t)token;
  }
  for (int at = 0; at < EMBEDDED; at += LANES) {
    lanes mean = all(0), variance = all(0);
    for (uint32_t number = 0; number < occurring; number++) {
      uint16_t token = model->occurring[number];
      mean = fused(all((float)counts[token]), load(&weights->table[token][at]), mean);
    }
    mean *= all(1.0f / POSITIONS);
    for (uint32_t number = 0; number < occurring; number++) {
      uint16_t token = model->occurring[number];
      lanes apart = load(&weights->table[token][at]) - mean;
      variance = fused(all((float)counts[token]) * apart, apart, variance);
      *(lanes *)&model->rows[number][at] = apart;
    }
    lanes factor;
    for (int lane = 0; lane < LANES; lane++) {
      factor[lane] = 1 / sqrtf(variance[lane] / POSITIONS + 1e-3f);
    }
    for (uint32_t number = 0; number < occurring; number++) {
      *(lanes *)&model->rows[number][at] *= factor;
    }
  }
  return occurring;
}

/* The first dense layer, before its bias: adds up what the bytes of each position give. */
static inline void first_layer(struct model *model, const struct weights *weights) {
  for (int place = 0; place < PLACES; place++) {
    uint32_t occurring = normalise(model, weights, place);
    for (int column = 0; column < HIDDEN; column += COLUMNS) {
      const float *panel = &weights->first[column / PANEL][place][0][column % PANEL];
      for (uint32_t number = 0; number < occurring; number += ROWS) {
        lanes sums[ROWS][2];
        multiply(sums, model->rows[number], EMBEDDED, EMBEDDED, panel);
        for (int row = 0; row < ROWS; row++) {
          memcpy(&model->products[number + (uint32_t)row][column], sums[row], sizeof sums[row]);
        }
      }
    }
    for (int position = 0; position < POSITIONS; position++) {
      uint16_t token = model->input[position * PLACES + place];
      const float *product = model->products[model->number[token]];
      float *sum = model->hidden[position];
      for (int at = 0; at < HIDDEN; at += LANES) {
        lanes before = place == 0 ? all(0) : load(sum + at);
        *(lanes *)(sum + at) = before + load(product + at);
      }
    }
  }
}

/* What follows from the layer norm for all bytes of a position, the bias, and the activation. */
static inline void activate(struct model *model, const struct weights *weights) {
  for (int position = 0; position < POSITIONS; position++) {
    lanes scale = all(weights->scale[position]), shift = all(weights->shift[position]);
    for (int at = 0; at < HIDDEN; at += LANES) {
      lanes *sum = (lanes *)&model->hidden[position][at];
      lanes constant = fused(shift, load(&weights->first_sums[at]), load(&weights->first_bias[at]));
      *sum = gelu(fused(*sum, scale, constant));
    }
  }
}

/* The second dense layer and its greatest activation over all positions. */
static inline void second_layer(const struct model *model, const struct weights *weights,
                                float pooled[HIDDEN]) {
  for (int column = 0; column < HIDDEN; column += COLUMNS) {
    const float *panel = &weights->second[column / PANEL][0][column % PANEL];
    lanes least[2] = {all(INFINITY), all(INFINITY)}, most[2] = {all(-INFINITY), all(-INFINITY)};
    for (int position = 0; position < POSITIONS; position += ROWS) {
      lanes sums[ROWS][2];
      multiply(sums, model->hidden[position], HIDDEN, HIDDEN, panel);
      for (int row = 0; row < ROWS; row++) {
        for (int half = 0; half < 2; half++) {
          least[half] = lesser(least[half], sums[row][half]);
          most[half] = greater(most[half], sums[row][half]);
        }
      }
    }
    for (int half = 0; half < 2; half++) {
      float *out = pooled + column + half * LANES;
      lanes bias = load(&weights->second_bias[column + half * LANES]);
      *(lanes *)out = greater(gelu(least[half] + bias), gelu(most[half] + bias));
    }
  }
}

/* The scores of all labels from what is left of the positions. */
static inline void last_layer(struct model *model, const struct weights *weights,
                              const float pooled[HIDDEN]) {
  float mean = 0, variance = 0, greatest = -INFINITY, sum = 0;
  for (int at = 0; at < HIDDEN; at++) mean += pooled[at] / HIDDEN;
  for (int at = 0; at < HIDDEN; at++) {
    variance += (pooled[at] - mean) * (pooled[at] - mean) / HIDDEN;
  }
  float factor = 1 / sqrtf(variance + 1e-3f);
  memcpy(model->scores, weights->last_bias, sizeof model->scores);
  for (int at = 0; at < HIDDEN; at++) {
    float value = (pooled[at] - mean) * factor * weights->last_scale[at] + weights->last_shift[at];
    for (int label = 0; label < LABELS_PADDED; label += LANES) {
      lanes *score = (lanes *)&model->scores[label];
      *score = fused(all(value), load(&weights->last[at][label]), *score);
    }
  }
  for (int label = 0; label < LABELS; label++) greatest = fmaxf(greatest, model->scores[label]);
  for (int label = 0; label < LABELS; label++) {
    model->scores[label] = expf(model->scores[label] - greatest);
    sum += model->scores[label];
  }
  for (int label = 0; label < LABELS; label++) model->scores[label] /= sum;
}

/* The scores of all labels for the input; gives the label with the highest one. */
static inline int infer(struct model *model, const struct weights *weights) {
  float pooled[HIDDEN] __attribute__((aligned(64)));
  int best = 0;
  first_layer(model, weights);
  activate(model, weights);
  second_layer(model, weights, pooled);
  last_layer(model, weights, pooled);
  for (int label = 1; label < LABELS; label++) {
    if (model->scores[label] > model->scores[best]) best = label;
  }
  return best;
}

/* Whether these are the weights that this code is written for. */
static inline int are_weights(const struct weights *weights) {
  return memcmp(weights->magic, "DLNTYPE1", 8) == 0 && weights->labels_count == LABELS;
}

#endif
