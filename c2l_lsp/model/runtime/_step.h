/* Decode steps; included by _kernel.c once for every width of registers: LANES numbers of 32 bits. */

/* Keys and values: fp32, bf16 (the upper half of one) or fp16. */
INLINE floats loaded(const void *kv, int64_t at, int kind) {
    if (kind == FP32) return *(const floats *)((const float *)kv + at);
    const uint16_t *half = (const uint16_t *)kv + at;
#if LANES == 8
    if (kind == FP16) return (floats)_mm256_cvtph_ps(_mm_loadu_si128((const void *)half));
    words bits = (words)_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)half));
#else
    words bits = __builtin_convertvector(*(const halves *)half, words);
    if (kind == FP16) {
        floats size = (floats)((bits & 0x7fff) << 13) * 0x1p112f;
        words infinite = (words)((bits & 0x7fff) > 0x7bff) & 0x7f800000;
        return (floats)((words)size | infinite | (bits & 0x8000) << 16);
    }
#endif
    return (floats)(bits << 16);
}

INLINE void stored(void *kv, int64_t at, float value, int kind) {
    if (kind == FP32) {
        ((float *)kv)[at] = value;
        return;
    }
    uint32_t bits, sign;
    memcpy(&bits, &value, 4);
    sign = bits >> 16 & 0x8000;
    if (kind == FP16) {
        float size = fabsf(value) * 0x1p-112f;
        memcpy(&bits, &size, 4);
        bits = (bits + 0xfff + (bits >> 13 & 1)) >> 13;
        bits = sign | (isnan(value) ? 0x7e00 : bits > 0x7c00 ? 0x7c00 : bits);
    } else bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16; /* to nearest, ties to even */
    ((uint16_t *)kv)[at] = (uint16_t)bits;
}

/* Rows [rows, n] in 16 bits: x ≈ scale · number. Sums of their products with int8 weights are exact, whatever their order:
 * `most` keeps them below 2^31. What is no number makes the scale none. Numbers of every GROUP rows lie as those of a strip do:
 * COLUMNS of each in turn. */
INLINE void rounded(const float *x, int64_t n, int64_t rows, int16_t *numbers, float *scales) {
    float most = fminf(32767.0f, 8.0e6f * 2 * LANES / (float)n);
    for (int64_t t = 0; t < rows; t++, x += n) {
        int64_t first = t / GROUP * GROUP, some = rows - first < GROUP ? rows - first : GROUP;
        int16_t *to = numbers + first * n + (t - first) * COLUMNS;
        floats most_of = {0}, nothing = {0};
        for (int64_t i = 0; i < n; i += LANES) {
            floats v = *(const floats *)(x + i);
            most_of = greater((floats)((ints)v & 0x7fffffff), most_of);
            nothing += v * 0.0f;
        }
        float top = highest((const float *)&most_of, LANES);
        float by = top > 0.0f ? most / top : 0.0f;
        for (int64_t k = 0; k < n; k += COLUMNS, to += some * COLUMNS)
            for (int i = 0; i < COLUMNS; i += LANES) {
                ints whole = nearest(*(const floats *)(x + k + i) * by);
                *(shorts *)(to + i) = __builtin_convertvector(whole, shorts);
            }
        scales[t] = top / most + total(nothing);
    }
}

/* `outs` rows of weights of a strip, from its row j on, against `rows` rows of x: outs · rows sums, each in one vector. The
 * strip's rows lie side by side, COLUMNS numbers of each in turn: one stream from memory. `fresh`: it comes from there. */
INLINE void block(const int8_t *strip, int64_t in, int j, const int16_t *x, int rows, int outs, int fresh, float *sums) {
    ints all[CHAINS] = {{0}};
    const int8_t *from = strip + j * COLUMNS;
    for (int64_t k = 0; k < in; k += COLUMNS, from += STRIP * COLUMNS, x += rows * COLUMNS) {
        if (fresh) /* hardware stops at every page */
            for (int i = 0; i < STRIP * COLUMNS; i += 64) __builtin_prefetch(from + AHEAD + i);
        for (int c = 0; c < COLUMNS; c += 2 * LANES)
            if (rows == 1) {
                Pair numbers = given(x + c);
                for (int o = 0; o < outs; o++) all[o] += paired(widened(from + o * COLUMNS + c), numbers);
            } else {
                Pair weights[CHAINS];
                for (int o = 0; o < outs; o++) weights[o] = widened(from + o * COLUMNS + c);
                for (int t = 0; t < rows; t++) {
                    Pair numbers = given(x + t * COLUMNS + c);
                    HELD(numbers);
                    for (int o = 0; o < outs; o++) all[o * rows + t] += paired(weights[o], numbers);
                }
            }
    }
    float found[CHAINS];
    whole_totals(all, found);
    for (int t = 0; t < rows; t++)
        for (int o = 0; o < outs; o++) sums[t * STRIP + j + o] = found[o * rows + t];
}

/* A strip of weights against `rows` rows of x, at most GROUP: sums [rows, STRIP]. */
INLINE void strip(const int8_t *weights, int64_t in, const int16_t *x, int64_t rows, int fresh, float *sums) {
    if (rows == 1) block(weights, in, 0, x, 1, 8, 1, sums);
    else if (rows == 2)
        for (int j = 0; j < STRIP; j += 4) block(weights, in, j, x, 2, 4, 1, sums);
    else if (rows == 3)
        for (int j = 0; j < STRIP; j += 2) block(weights, in, j, x, 3, 2, 1, sums);
    else if (fresh)
        for (int j = 0; j < STRIP; j += 2) block(weights, in, j, x, 4, 2, 1, sums);
    else
        for (int j = 0; j < STRIP; j += 2) block(weights, in, j, x, 4, 2, 0, sums);
}

/* `count` outputs of a strip from o on: scaled, with their bias. */
INLINE void finished(const Product *p, int64_t o, int64_t count, const float *sums, float scale, float *y) {
    const float *to = p->more ? y : p->bias ? p->bias + o : NULL;
    if (count == STRIP)
        for (int j = 0; j < STRIP; j += LANES) {
            floats v = *(const floats *)(sums + j) * (*(const floats *)(p->scale + o + j) * scale);
            *(floats *)(y + j) = to ? v + *(const floats *)(to + j) : v;
        }
    else
        for (int64_t j = 0; j < count; j++) y[j] = sums[j] * (p->scale[o + j] * scale) + (to ? to[j] : 0.0f);
}

/* Strips `from` ≤ i < `to` of a product. One piece of code whoever calls it: inlined, it might round differently. */
APART void strips(const Product *p, int64_t from, int64_t to) {
    for (int64_t o = from * STRIP; o < to * STRIP; o += STRIP)
        for (int64_t t = 0; t < p->rows; t += GROUP) { /* the strip is in the first cache after its first rows */
            float sums[GROUP * STRIP];
            int64_t some = p->rows - t < GROUP ? p->rows - t : GROUP, count = p->out - o < STRIP ? p->out - o : STRIP;
            strip(p->weight + o * p->in, p->in, p->numbers + t * p->in, some, !t, sums);
            for (int64_t r = 0; r < some; r++)
                finished(p, o, count, sums + r * STRIP, p->scales[t + r], p->y + (t + r) * p->out + o);
        }
}

static void some_strips(const void *arguments, int64_t number, int64_t who) {
    (void)who;
    const Product *p = arguments;
    int64_t all = (p->out + STRIP - 1) / STRIP, from = number * p->each, to = from + p->each;
    strips(p, from, to < all ? to : all);
}

/* A product by whoever is free. */
INLINE void divided(Product p, int team) {
    int64_t all = (p.out + STRIP - 1) / STRIP;
    p.each = PART / (STRIP * p.in) + 1;
    if (team && all > p.each) shared(some_strips, &p, (all + p.each - 1) / p.each);
    else strips(&p, 0, all);
}

/* y [rows, out] = x [rows, in] Wᵀ · scale + bias, and what stands beside; `in` a multiple of COLUMNS. `room` has space for
 * rows · (in / 2 + 1 + 2 · rank + 1) numbers. */
INLINE void product(const Matrix *m, int64_t in, int64_t out, const float *x, float *y, int64_t rows, float *room, int team) {
    int16_t *numbers = (int16_t *)(room + rows);
    rounded(x, in, rows, numbers, room);
    divided((Product){m->weight, m->scale, m->bias, in, out, rows, 0, numbers, room, y, 0}, team);
    if (!m->rank) return;
    float *low = room + rows * (in / 2 + 1), *scales = low + rows * m->rank;
    divided((Product){m->low, m->low_scale, NULL, in, m->rank, rows, 0, numbers, room, low, 0}, team);
    numbers = (int16_t *)(scales + rows);
    rounded(low, m->rank, rows, numbers, scales);
    divided((Product){m->high, m->high_scale, NULL, m->rank, out, rows, 0, numbers, scales, y, 1}, team);
}

INLINE void normed(const float *x, const float *weight, float eps, int64_t d, float *y) {
    floats squares = {0};
    for (int64_t i = 0; i < d; i += LANES) {
        floats v = *(const floats *)(x + i);
        squares += v * v;
    }
    float by = 1.0f / sqrtf(total(squares) / (float)d + eps);
    for (int64_t i = 0; i < d; i += LANES) *(floats *)(y + i) = *(const floats *)(x + i) * by * *(const floats *)(weight + i);
}

/* Turns q and k, whose pairs stand side by side, and writes keys and values to their place. */
INLINE void placed(const Shape *s, float *qkv, const float *turn, void *kv, int64_t position) {
    int64_t h = s->head_dim, q = s->heads * h, k = s->kv_heads * h;
    for (int64_t i = 0; i < q + k; i += 2) {
        const float *by = turn + (i < q ? 0 : h) + i % h; /* cos, sin */
        float a = qkv[i], b = qkv[i + 1];
        qkv[i] = a * by[0] - b * by[1];
        qkv[i + 1] = a * by[1] + b * by[0];
    }
    for (int64_t i = 0; i < 2 * k; i++) stored(kv, position * 2 * k + i, qkv[q + i], (int)s->kind);
}

/* Asks for the keys or values of a position: hardware does not see so far where rows lie apart. */
INLINE void asked(const Keys *k, int64_t p, int64_t at, int kind) {
    int64_t size = kind == FP32 ? 4 : 2;
    const char *from = (const char *)k->kv + ((p - k->first) * k->stride + at) * size;
    for (int64_t i = 0; i < k->width * size; i += 64) __builtin_prefetch(from + i);
}

/* Keys or values, at `at`, of the positions `from` ≤ p < `to` as fp32 in `room`: for all queries of a tile. */
INLINE Keys unpacked(const Keys *k, int64_t at, int64_t from, int64_t to, float *room, int kind) {
    for (int64_t p = from; p < to; p++) {
        asked(k, p + SOON, at, kind);
        for (int64_t i = 0; i < k->width; i += LANES)
            *(floats *)(room + (p - from) * k->width + i) = loaded(k->kv, (p - k->first) * k->stride + at + i, kind);
    }
    return (Keys){room, k->width, 0, 0, k->width, from};
}

/* Products of `heads` queries [heads, width] with the keys of `count` ≤ 4 positions from p on, into scores [heads, room]. */
INLINE void some_compared(const Keys *k, const float *q, int64_t p, int count, float *scores, int64_t room, int heads, int kind) {
    floats sums[CHAINS] = {{0}};
    for (int64_t i = 0; i < k->width; i += LANES)
        for (int j = 0; j < count; j++) {
            floats key = loaded(k->kv, (p + j - k->first) * k->stride + k->key + i, kind);
            HELD(key);
            for (int g = 0; g < heads; g++) sums[4 * g + j] += *(const floats *)(q + g * k->width + i) * key;
        }
    float found[CHAINS];
    totals(sums, found);
    for (int g = 0; g < heads; g++)
        for (int j = 0; j < count; j++) scores[g * room + p + j] = found[4 * g + j];
}

/* Products of `heads` queries, two at most, with the keys of positions `from` ≤ p < `to`. `asks`: they come from memory. */
INLINE void compared(const Keys *k, const float *q, int64_t from, int64_t to, float *scores, int64_t room, int heads, int kind,
                     int asks) {
    int64_t p = from;
    for (; p + 4 <= to; p += 4) {
        if (asks)
            for (int j = 0; j < 4; j++) asked(k, p + j + SOON, k->key, kind);
        some_compared(k, q, p, 4, scores, room, heads, kind);
    }
    for (; p < to; p++) some_compared(k, q, p, 1, scores, room, heads, kind);
}

/* scores [count] become their softmax; there is room up to a multiple of LANES. */
INLINE void weighed(float *scores, int64_t count) {
    for (int64_t p = count; p % LANES; p++) scores[p] = -INFINITY;
    float most = highest(scores, (count + LANES - 1) / LANES * LANES);
    floats sums = {0};
    for (int64_t p = 0; p < count; p += LANES) {
        floats part = exponential(*(floats *)(scores + p) - most);
        *(floats *)(scores + p) = part;
        sums += part; /* e^-87 of what is not there */
    }
    float by = 1.0f / total(sums);
    for (int64_t p = 0; p < count; p += LANES) *(floats *)(scores + p) *= by;
}

/* Adds the values of positions `from` ≤ p < `to`, weighted, to `vectors` vectors of what `heads` queries see. */
INLINE void seen_more(const Keys *k, const float *weights, int64_t room, int64_t from, int64_t to, int64_t i, int vectors,
                      float *out, int heads, int kind, int asks) {
    floats sums[CHAINS];
    for (int g = 0; g < heads; g++)
        for (int j = 0; j < vectors; j++) sums[4 * g + j] = *(const floats *)(out + g * k->width + i + j * LANES);
    for (int64_t p = from; p < to; p++) {
        if (asks && !i) asked(k, p + SOON, k->value, kind);
        for (int j = 0; j < vectors; j++) {
            floats value = loaded(k->kv, (p - k->first) * k->stride + k->value + i + j * LANES, kind);
            HELD(value);
            for (int g = 0; g < heads; g++) sums[4 * g + j] += weights[g * room + p] * value;
        }
    }
    for (int g = 0; g < heads; g++)
        for (int j = 0; j < vectors; j++) *(floats *)(out + g * k->width + i + j * LANES) = sums[4 * g + j];
}

/* Positions `from` ≤ p < `to` of what `heads` queries see, two at most. */
INLINE void viewed(const Keys *k, const float *weights, int64_t room, int64_t from, int64_t to, float *out, int heads, int kind,
                   int asks) {
    int64_t i = 0;
    for (; i + 4 * LANES <= k->width; i += 4 * LANES)
        seen_more(k, weights, room, from, to, i, 4, out, heads, kind, asks);
    for (; i < k->width; i += LANES) seen_more(k, weights, room, from, to, i, 1, out, heads, kind, asks);
}

/* Attention of the heads that share keys, of at most TILE rows. Positions come in blocks that stay in the first cache until
 * every head of every row has seen them. q and out: `group` heads [group, width] per row, rows `apart` and `beside` numbers
 * from one another; scores [rows · group, room], room of whole blocks. Row t sees start + t + 1 positions. */
INLINE void attended(const Keys *k, const float *q, int64_t apart, int64_t group, int64_t start, int64_t rows, float *scores,
                     int64_t room, float *out, int64_t beside, int kind) {
    int64_t count = start + rows, w = k->width;
    float wide[BLOCK * MOST_HEAD];
    int copies = rows > 1 && kind != FP32 && w <= MOST_HEAD;
    for (int64_t from = 0; from < count; from += BLOCK) {
        Keys near = copies ? unpacked(k, k->key, from, from + BLOCK < count ? from + BLOCK : count, wide, kind) : *k;
        for (int64_t t = 0; t < rows; t++) {
            int64_t to = from + BLOCK < start + t + 1 ? from + BLOCK : start + t + 1, g = 0;
            for (; g < group; g += 2) {
                const float *asking = q + t * apart + g * w;
                float *into = scores + (t * group + g) * room;
                int heads = g + 2 > group ? 1 : 2;
                if (copies && heads == 2) compared(&near, asking, from, to, into, room, 2, FP32, 0);
                else if (copies) compared(&near, asking, from, to, into, room, 1, FP32, 0);
                else if (heads == 2) compared(&near, asking, from, to, into, room, 2, kind, 1);
                else compared(&near, asking, from, to, into, room, 1, kind, 1);
            }
        }
    }
    for (int64_t t = 0; t < rows; t++) {
        memset(out + t * beside, 0, (size_t)(group * w) * sizeof(float));
        for (int64_t g = 0; g < group; g++) weighed(scores + (t * group + g) * room, start + t + 1);
    }
    for (int64_t from = 0; from < count; from += BLOCK) {
        Keys near = copies ? unpacked(k, k->value, from, from + BLOCK < count ? from + BLOCK : count, wide, kind) : *k;
        for (int64_t t = 0; t < rows; t++) {
            int64_t to = from + BLOCK < start + t + 1 ? from + BLOCK : start + t + 1, g = 0;
            for (; g < group; g += 2) {
                const float *weights = scores + (t * group + g) * room;
                float *into = out + t * beside + g * w;
                int heads = g + 2 > group ? 1 : 2;
                if (copies && heads == 2) viewed(&near, weights, room, from, to, into, 2, FP32, 0);
                else if (copies) viewed(&near, weights, room, from, to, into, 1, FP32, 0);
                else if (heads == 2) viewed(&near, weights, room, from, to, into, 2, kind, 1);
                else viewed(&near, weights, room, from, to, into, 1, kind, 1);
            }
        }
    }
}

/* out [inner] = silu(gate) · up of [gate, up]; out may be gate. */
INLINE void gated(const float *both, int64_t inner, float *out) {
    for (int64_t i = 0; i < inner; i += LANES) {
        floats gate = *(const floats *)(both + i), up = *(const floats *)(both + inner + i);
        *(floats *)(out + i) = gate / (1.0f + exponential(-gate)) * up;
    }
}

INLINE void added(float *x, const float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) *(floats *)(x + i) += *(const floats *)(y + i);
}

/* out = x + x Cᵀ of rows [rows, d], d a multiple of 4. */
static void mapped(const float *x, const float *map, float *out, int64_t d, int64_t rows) {
    for (int64_t i = 0; i < d; i += 4)
        for (int64_t t = 0; t < rows; t++) {
            floats sums[4] = {{0}};
            for (int64_t k = 0; k < d; k += LANES)
                for (int j = 0; j < 4; j++) sums[j] += *(const floats *)(map + (i + j) * d + k) * *(const floats *)(x + t * d + k);
            for (int j = 0; j < 4; j++) out[t * d + i + j] = x[t * d + i + j] + total(sums[j]);
        }
}

static void multiplied(const Matrix *m, int64_t in, int64_t out, const float *x, float *y, int64_t rows, float *room, int team) {
    product(m, in, out, x, y, rows, room, team);
}

/* Attention of some rows, and of the heads that share keys: part `number` of tiles · kv_heads. */
APART void one_attended(const void *arguments, int64_t number, int64_t who) {
    const Attention *a = arguments;
    const Shape *s = a->shape;
    int64_t h = s->head_dim, group = s->heads / s->kv_heads, q = s->heads * h, k = s->kv_heads * h, w = q + 2 * k;
    int64_t j = number % s->kv_heads, first = number / s->kv_heads * TILE;
    int64_t rows = a->rows - first < TILE ? a->rows - first : TILE, start = a->start + first;
    Keys keys = {a->kv, 2 * k, j * h, k + j * h, h, 0};
    const float *from = a->projected + first * w + j * group * h;
    float *to = a->seen + first * q + j * group * h, *scores = a->scores + who * a->apart;
    if (s->kind == FP16) attended(&keys, from, w, group, start, rows, scores, a->capacity, to, q, FP16);
    else if (s->kind == FP32) attended(&keys, from, w, group, start, rows, scores, a->capacity, to, q, FP32);
    else attended(&keys, from, w, group, start, rows, scores, a->capacity, to, q, BF16);
}

/* What all rows see. */
INLINE void all_attended(const Attention *a, int team) {
    int64_t parts = (a->rows + TILE - 1) / TILE * a->shape->kv_heads;
    if (team && a->start + a->rows > FAR) shared(one_attended, a, parts);
    else
        for (int64_t i = 0; i < parts; i++) one_attended(a, i, 0);
}

/* x [rows, width] becomes the normed states after the last layer of the tokens `ids`, which stand from `start` on; their
 * keys and values are written into the text. Only the last `wanted` rows go through the last layer to its end. `turns`
 * [capacity, 3, head_dim]: cos and sin of q, k and v by position. `room` has space for rows · (width + max(projected,
 * 2 · inner) + heads · head_dim + most of what is multiplied / 2 + 2 + 2 · rank) numbers and, for each thread, for
 * min(rows, TILE) · heads / kv_heads · capacity; the capacity is a multiple of 16 not below start + rows. */
static void stepped(const Shape *s, const Layer *layers, const float *final, const void *embedding, const float *turns,
                    const Text *text, const int32_t *ids, float *x, int64_t start, int64_t rows, int64_t wanted, float *room,
                    int team) {
    int64_t d = s->width, h = s->head_dim, q = s->heads * h, k = s->kv_heads * h, f = s->inner;
    int64_t projected = q + 2 * k, group = s->heads / s->kv_heads, size = s->kind == FP32 ? 4 : 2;
    float *y = room, *big = y + rows * d, *view = big + rows * (projected > 2 * f ? projected : 2 * f);
    float *numbers = view + rows * q, eps = (float)s->eps;
    float *scores = numbers + rows * ((d > q ? d > f ? d : f : q > f ? q : f) / 2 + 2 + 2 * s->rank);
    int64_t apart = (rows < TILE ? rows : TILE) * group * text->capacity;
    for (int64_t t = 0; t < rows; t++)
        for (int64_t i = 0; i < d; i += LANES) *(floats *)(x + t * d + i) = loaded(embedding, ids[t] * d + i, (int)s->embedded);
    for (int64_t l = 0; l < s->layers; l++) {
        const Layer *layer = layers + l;
        void *kv = (char *)text->all + l * text->capacity * 2 * k * size;
        for (int64_t t = 0; t < rows; t++) normed(x + t * d, layer->attention_norm, eps, d, y + t * d);
        product(&layer->qkv, d, projected, y, big, rows, numbers, team);
        for (int64_t t = 0; t < rows; t++) placed(s, big + t * projected, turns + (start + t) * 3 * h, kv, start + t);
        const float *asking = big;
        if (l == s->layers - 1) {
            int64_t passed = rows - wanted;
            asking += passed * projected, x += passed * d, start += passed, rows = wanted;
        }
        Attention a = {s, kv, asking, view, scores, start, rows, text->capacity, apart};
        all_attended(&a, team);
        product(&layer->output, q, d, view, y, rows, numbers, team);
        added(x, y, rows * d);
        for (int64_t t = 0; t < rows; t++) normed(x + t * d, layer->mlp_norm, eps, d, y + t * d);
        product(&layer->gate_up, d, 2 * f, y, big, rows, numbers, team);
        for (int64_t t = 0; t < rows; t++) gated(big + t * 2 * f, f, big + t * f); /* row t's place was read before */
        product(&layer->down, f, d, big, y, rows, numbers, team);
        added(x, y, rows * d);
    }
    for (int64_t t = 0; t < rows; t++) normed(x + t * d, final, eps, d, x + t * d);
}
