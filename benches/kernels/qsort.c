// qsort: sorts N thousand records with our own quicksort, which compares through a function pointer.
// usage: qsort [N]
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct record {
  uint32_t key, payload;
};

typedef int order(const struct record *a, const struct record *b);

static int by_key(const struct record *a, const struct record *b) {
  return (a->key > b->key) - (a->key < b->key);
}

// Read at run time, so that neither compiler can inline the comparison.
static order *volatile chosen_order = by_key;

static void swap(struct record *a, struct record *b) {
  struct record kept = *a;
  *a = *b;
  *b = kept;
}

static void insertion_sort(struct record *from, long count, order *compare) {
  for (long i = 1; i < count; i++) {
    struct record moving = from[i];
    long j = i;
    for (; j > 0 && compare(&moving, &from[j - 1]) < 0; j--) from[j] = from[j - 1];
    from[j] = moving;
  }
}

// Hoare's partition around the median of three; the smaller part by recursion, the larger by loop.
static void quicksort(struct record *from, long count, order *compare) {
  while (count > 16) {
    struct record *middle = from + count / 2, *last = from + count - 1;
    if (compare(middle, from) < 0) swap(middle, from);
    if (compare(last, from) < 0) swap(last, from);
    if (compare(last, middle) < 0) swap(last, middle);
    struct record pivot = *middle;
    long i = -1, j = count;
    for (;;) {
      do i++; while (compare(&from[i], &pivot) < 0);
      do j--; while (compare(&pivot, &from[j]) < 0);
      if (i >= j) break;
      swap(&from[i], &from[j]);
    }
    long left = j + 1;
    if (left < count - left) {
      quicksort(from, left, compare);
      from += left;
      count -= left;
    } else {
      quicksort(from + left, count - left, compare);
      count = left;
    }
  }
  insertion_sort(from, count, compare);
}

int main(int argc, char **argv) {
  int thousands = argc > 1 ? atoi(argv[1]) : 6000;
  if (thousands < 1 || thousands > 100000) return 2;
  long count = thousands * 1000L;
  struct record *records = malloc((size_t)count * sizeof *records);
  if (records == NULL) return 1;
  uint64_t random = 88172645463325252u;
  for (long i = 0; i < count; i++) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    records[i] = (struct record){(uint32_t)(random >> 32), (uint32_t)i};
  }
  quicksort(records, count, chosen_order);
  uint64_t sum = 0;
  for (long i = 0; i < count; i++) {
    if (i > 0 && records[i - 1].key > records[i].key) return 1;
    sum = sum * 31 + records[i].key;
  }
  printf("%016llx\n", (unsigned long long)sum);
  return 0;
}
