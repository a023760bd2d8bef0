/* Token index: the positions of a token text, sorted by the tokens before them, nearest first (a suffix array of the
 * reversed text). token_index.py defines its terms. Independent of the register width. */

enum { MAX_CONTEXT = 64, TOKEN_CANDIDATES = 32, BOUNDARY = -1, INSERTION_SORT = 12 }; /* as in token_index.py */

/* The candidates of one look-up: match lengths and next tokens, the longest match, and how many positions have it. */
typedef struct {
    float lengths[TOKEN_CANDIDATES];
    int32_t next[TOKEN_CANDIDATES];
    int64_t count, longest, positions;
} TokenCandidates;

/* What two positions are compared by, in turn: up to MAX_CONTEXT tokens backwards, the next token, their place. */
INLINE int32_t sort_key(const int32_t *ids, int32_t position, int depth) {
    if (depth < MAX_CONTEXT) return ids[position - depth];
    return depth == MAX_CONTEXT ? ids[position + 1] : position;
}

/* The depth after `depth` for positions with an equal key: a chunk ends at its boundary. */
INLINE int next_depth(int depth, int32_t key) { return depth < MAX_CONTEXT && key == BOUNDARY ? MAX_CONTEXT : depth + 1; }

/* Whether position a sorts before b, if both have equal keys up to `depth`. */
INLINE int sorts_before(const int32_t *ids, int32_t a, int32_t b, int depth) {
    while (depth <= MAX_CONTEXT + 1) {
        int32_t one = sort_key(ids, a, depth), other = sort_key(ids, b, depth);
        if (one != other) return one < other;
        depth = next_depth(depth, one);
    }
    return 0;
}

static void insertion_sort(const int32_t *ids, int32_t *order, int64_t n, int depth) {
    for (int64_t i = 1; i < n; i++) {
        int32_t moved = order[i];
        int64_t j = i;
        for (; j > 0 && sorts_before(ids, moved, order[j - 1], depth); j--) order[j] = order[j - 1];
        order[j] = moved;
    }
}

/* The median of three keys at pseudo-random places, so that no text can be made that sorts slowly. */
static int32_t pivot_key(const int32_t *ids, const int32_t *order, int64_t n, int depth, uint64_t *random) {
    int32_t keys[3];
    for (int i = 0; i < 3; i++) {
        *random = *random * 6364136223846793005u + 1442695040888963407u;
        keys[i] = sort_key(ids, order[(int64_t)((*random >> 33) % (uint64_t)n)], depth);
    }
    int32_t low = keys[0] < keys[1] ? keys[0] : keys[1], high = keys[0] < keys[1] ? keys[1] : keys[0];
    return keys[2] < low ? low : keys[2] > high ? high : keys[2];
}

/* Multikey quicksort of order [n] (Bentley and Sedgewick 1997); all keys before `depth` are equal. */
static void sort_from(const int32_t *ids, int32_t *order, int64_t n, int depth, uint64_t *random) {
    while (n > INSERTION_SORT) {
        int32_t pivot = pivot_key(ids, order, n, depth, random);
        int64_t low = 0, high = n, i = 0; /* below the pivot: [0, low), equal: [low, i), above: [high, n) */
        while (i < high) {
            int32_t position = order[i], key = sort_key(ids, position, depth);
            if (key < pivot) order[i++] = order[low], order[low++] = position;
            else if (key > pivot) order[i] = order[--high], order[high] = position;
            else i++;
        }
        if (depth <= MAX_CONTEXT) sort_from(ids, order + low, high - low, next_depth(depth, pivot), random);
        if (low < n - high) { /* recursion on the smaller part: its depth stays logarithmic */
            sort_from(ids, order, low, depth, random);
            order += high, n -= high;
        } else {
            sort_from(ids, order + high, n - high, depth, random);
            n = low;
        }
    }
    insertion_sort(ids, order, n, depth);
}

/* Sorts the positions order [n]. */
static void sort_positions(const int32_t *ids, int32_t *order, int64_t n) {
    uint64_t random = 1;
    sort_from(ids, order, n, 0, &random);
}

/* Merges the sorted positions fresh [added] into the sorted order [n]; out [n + added]. */
static void merge_positions(const int32_t *ids, const int32_t *order, int64_t n, const int32_t *fresh, int64_t added,
                            int32_t *out) {
    int64_t from = 0;
    for (int64_t i = 0; i < added; i++) {
        int64_t low = from, high = n;
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (sorts_before(ids, order[middle], fresh[i], 0)) low = middle + 1;
            else high = middle;
        }
        memcpy(out, order + from, (size_t)(low - from) * sizeof *out);
        out += low - from;
        *out++ = fresh[i];
        from = low;
    }
    memcpy(out, order + from, (size_t)(n - from) * sizeof *out);
}

/* Compares the tokens up to a position with the last `limit` of tail [MAX_CONTEXT], nearest first: below, at or above 0.
 * `common` becomes the number of equal tokens. */
INLINE int compare_tail(const int32_t *ids, int32_t position, const int32_t *tail, int limit, int *common) {
    for (int depth = 0; depth < limit; depth++) {
        int32_t key = ids[position - depth], wanted = tail[MAX_CONTEXT - 1 - depth];
        if (key != wanted || wanted < 0) return *common = depth, key < wanted ? -1 : 1; /* never beyond a boundary */
    }
    return *common = limit, 0;
}

/* The first index in [low, high) whose position compares above `bound` with the last `limit` tokens of the tail. */
INLINE int64_t first_above(const int32_t *ids, const int32_t *order, int64_t low, int64_t high, const int32_t *tail, int limit,
                           int bound) {
    int common;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (compare_tail(ids, order[middle], tail, limit, &common) > bound) high = middle;
        else low = middle + 1;
    }
    return low;
}

/* Equal tokens before the position at index `at` and in the tail; 0 outside order [n]. */
INLINE int common_at(const int32_t *ids, const int32_t *order, int64_t n, int64_t at, const int32_t *tail) {
    int common = 0;
    if (at >= 0 && at < n) compare_tail(ids, order[at], tail, MAX_CONTEXT, &common);
    return common;
}

/* Finds candidates for what follows tail [MAX_CONTEXT]: positions with the longest match first, then with the next shorter
 * one, until there are TOKEN_CANDIDATES. Of too many with equal lengths, some at equal distances are taken. Numbers below −1
 * pad a tail that begins before the text. */
static void find_token_candidates(const int32_t *ids, const int32_t *order, int64_t n, const int32_t *tail, TokenCandidates *f) {
    int64_t low = first_above(ids, order, 0, n, tail, MAX_CONTEXT, -1), high = low;
    int left = common_at(ids, order, n, low - 1, tail), right = common_at(ids, order, n, high, tail);
    int length = left > right ? left : right;
    f->count = 0, f->longest = length, f->positions = 0;
    while (length > 0 && f->count < TOKEN_CANDIDATES) {
        int64_t below = low - first_above(ids, order, 0, low, tail, length, -1);
        int64_t shell = below + first_above(ids, order, high, n, tail, length, 0) - high;
        int64_t wanted = TOKEN_CANDIDATES - f->count < shell ? TOKEN_CANDIDATES - f->count : shell;
        if (length == f->longest) f->positions = shell;
        for (int64_t i = 0; i < wanted; i++) {
            int64_t at = i * shell / wanted;
            f->lengths[f->count] = (float)length;
            f->next[f->count++] = ids[order[at < below ? low - below + at : high + at - below] + 1];
        }
        low -= below, high += shell - below;
        left = common_at(ids, order, n, low - 1, tail), right = common_at(ids, order, n, high, tail);
        length = left > right ? left : right;
    }
}
