/* Decode steps; included by _kernel.c once for every width of registers: LANES numbers of 32 bits. */

/* Keys and values: fp32, or bf16 as the upper half of one. */
INLINE floats loaded(const void *kv, int64_t at, int wide) {
    if (wide) return *(const floats *)((const float *)kv + at);
    const uint16_t *half = (const uint16_t *)kv + at;
#if LANES == 8
    words bits = (words)_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)half));
#else
    words bits = __builtin_convertvector(*(const halves *)half, words);
#endif
    return (floats)(bits << 16);
}

INLINE void stored(void *kv, int64_t at, float value, int wide) {
    if (wide) {
        ((float *)kv)[at] = value;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &value, 4);
    ((uint16_t *)kv)[at] = (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16); /* to nearest, ties to even */
}

/* Rows [rows, n] in 16 bits: x ≈ scale · number. Sums of their products with int8 weights are exact, whatever their order:
 * `most` keeps them below 2^31. What is no number makes the scale none. */
INLINE void rounded(const float *x, int64_t n, int64_t rows, int16_t *numbers, float *scales) {
    float most = fminf(32767.0f, 8.0e6f * 2 * LANES / (float)n);
    for (int64_t t = 0; t < rows; t++, x += n, numbers += n) {
        floats highest = {0}, nothing = {0};
        for (int64_t i = 0; i < n; i += LANES) {
            floats v = *(const floats *)(x + i), size = (floats)((ints)v & 0x7fffffff);
            ints higher = size > highest;
            highest = (floats)(((ints)size & higher) | ((ints)highest & ~higher));
            nothing += v * 0.0f;
        }
        float top = 0.0f;
        for (int j = 0; j < LANES; j++) top = fmaxf(top, highest[j]);
        float by = top > 0.0f ? most / top : 0.0f;
        for (int64_t i = 0; i < n; i += LANES) {
            ints whole = nearest(*(const floats *)(x + i) * by);
            *(shorts *)(numbers + i) = __builtin_convertvector(whole, shorts);
        }
        scales[t] = top / most + total(nothing);
    }
}

/* `outs` rows of weights of a strip, from its row j on, against `rows` rows of x: outs · rows sums, each in one vector. The
 * strip's rows lie side by side, COLUMNS numbers of each in turn: one stream from memory. */
INLINE void block(const int8_t *strip, int64_t in, int j, const int16_t *x, int rows, int outs, float *sums) {
    ints all[CHAINS] = {{0}};
    const int8_t *from = strip + j * COLUMNS;
    for (int64_t k = 0; k < in; k += COLUMNS, from += STRIP * COLUMNS) {
        for (int i = 0; i < STRIP * COLUMNS; i += 64) __builtin_prefetch(from + AHEAD + i); /* hardware stops at every page */
        for (int o = 0; o < outs; o++)
            for (int c = 0; c < COLUMNS; c += 2 * LANES) {
                Pair w = widened(from + o * COLUMNS + c);
                for (int t = 0; t < rows; t++) all[o * rows + t] += paired(w, x + t * in + k + c);
            }
    }
    for (int o = 0; o < outs; o++)
        for (int t = 0; t < rows; t++) sums[t * STRIP + j + o] = total(__builtin_convertvector(all[o * rows + t], floats));
}

/* A strip of weights against `rows` rows of x, at most four: sums [rows, STRIP]. */
INLINE void strip(const int8_t *weights, int64_t in, const int16_t *x, int64_t rows, float *sums) {
    if (rows == 1) block(weights, in, 0, x, 1, 8, sums);
    else if (rows == 2)
        for (int j = 0; j < STRIP; j += 4) block(weights, in, j, x, 2, 4, sums);
    else if (rows == 3)
        for (int j = 0; j < STRIP; j += 2) block(weights, in, j, x, 3, 2, sums);
    else
        for (int j = 0; j < STRIP; j += 2) block(weights, in, j, x, 4, 2, sums);
}

/* y [rows, out] = x [rows, in] Wᵀ · scale + bias; `in` a multiple of COLUMNS. `room` has space for rows · (in / 2 + 1)
 * numbers. */
INLINE void product(const Matrix *m, int64_t in, int64_t out, const float *x, float *y, int64_t rows, float *room) {
    int16_t *numbers = (int16_t *)(room + rows);
    rounded(x, in, rows, numbers, room);
    for (int64_t o = 0; o < out; o += STRIP)
        for (int64_t t = 0; t < rows; t += 4) { /* the strip is in the first cache after its first rows */
            float sums[4 * STRIP];
            int64_t some = rows - t < 4 ? rows - t : 4, most = out - o < STRIP ? out - o : STRIP;
            strip(m->weight + o * in, in, numbers + t * in, some, sums);
            for (int64_t r = 0; r < some; r++)
                for (int64_t j = 0; j < most; j++)
                    y[(t + r) * out + o + j] =
                        sums[r * STRIP + j] * (m->scale[o + j] * room[t + r]) + (m->bias ? m->bias[o + j] : 0.0f);
        }
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
    for (int64_t i = 0; i < 2 * k; i++) stored(kv, position * 2 * k + i, qkv[q + i], (int)s->wide);
}

/* Products of a query with the keys of positions `from` ≤ p < `to`. */
INLINE void compared(const Keys *k, const float *q, int64_t from, int64_t to, float *scores) {
    int64_t p = from;
    for (; p + 4 <= to; p += 4) {
        floats sums[4] = {{0}};
        for (int64_t i = 0; i < k->width; i += LANES)
            for (int j = 0; j < 4; j++)
                sums[j] += *(const floats *)(q + i) * loaded(k->kv, (p + j) * k->stride + k->key + i, k->wide);
        for (int j = 0; j < 4; j++) scores[p + j] = total(sums[j]);
    }
    for (; p < to; p++) {
        floats sum = {0};
        for (int64_t i = 0; i < k->width; i += LANES)
            sum += *(const floats *)(q + i) * loaded(k->kv, p * k->stride + k->key + i, k->wide);
        scores[p] = total(sum);
    }
}

/* scores [count] become e^(score − the highest), with room up to a multiple of LANES; their sum. */
INLINE float weighed(float *scores, int64_t count) {
    float most = scores[0];
    for (int64_t p = 1; p < count; p++) most = scores[p] > most ? scores[p] : most;
    for (int64_t p = count; p % LANES; p++) scores[p] = -INFINITY;
    float sum = 0.0f;
    for (int64_t p = 0; p < count; p += LANES) {
        floats part = exponential(*(floats *)(scores + p) - most);
        *(floats *)(scores + p) = part;
        if (p + LANES <= count) sum += total(part);
    }
    for (int64_t p = count / LANES * LANES; p < count; p++) sum += scores[p];
    return sum;
}

/* Adds the values of positions `from` ≤ p < `to`, weighted, to `vectors` vectors of what a query sees. */
INLINE void seen_more(const Keys *k, const float *weights, int64_t from, int64_t to, int64_t i, int vectors, float *out) {
    floats sums[4];
    for (int j = 0; j < vectors; j++) sums[j] = *(const floats *)(out + i + j * LANES);
    for (int64_t p = from; p < to; p++)
        for (int j = 0; j < vectors; j++)
            sums[j] += weights[p] * loaded(k->kv, p * k->stride + k->value + i + j * LANES, k->wide);
    for (int j = 0; j < vectors; j++) *(floats *)(out + i + j * LANES) = sums[j];
}

/* Attention of `group` heads [group, width] that share keys, of one row, over `count` positions. Positions come in blocks
 * that stay in the first cache until every head has seen them. `scores` [group, stride] with a stride of whole blocks. */
INLINE void attended(const Keys *k, const float *q, int64_t group, int64_t count, float *scores, int64_t room, float *out) {
    for (int64_t from = 0; from < count; from += BLOCK)
        for (int64_t g = 0; g < group; g++)
            compared(k, q + g * k->width, from, from + BLOCK < count ? from + BLOCK : count, scores + g * room);
    float sums[MOST_HEADS];
    for (int64_t g = 0; g < group; g++) sums[g] = weighed(scores + g * room, count);
    memset(out, 0, (size_t)(group * k->width) * sizeof(float));
    for (int64_t from = 0; from < count; from += BLOCK)
        for (int64_t g = 0; g < group; g++) {
            int64_t i = 0, to = from + BLOCK < count ? from + BLOCK : count;
            for (; i + 4 * LANES <= k->width; i += 4 * LANES)
                seen_more(k, scores + g * room, from, to, i, 4, out + g * k->width);
            for (; i < k->width; i += LANES) seen_more(k, scores + g * room, from, to, i, 1, out + g * k->width);
        }
    for (int64_t g = 0; g < group; g++)
        for (int64_t i = 0; i < k->width; i += LANES) *(floats *)(out + g * k->width + i) /= sums[g];
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

/* out = x + x Cᵀ of rows [rows, d]. */
static void mapped(const float *x, const float *map, float *out, int64_t d, int64_t rows) {
    for (int64_t i = 0; i < d; i++)
        for (int64_t t = 0; t < rows; t++) {
            floats sum = {0};
            for (int64_t k = 0; k < d; k += LANES) sum += *(const floats *)(map + i * d + k) * *(const floats *)(x + t * d + k);
            out[t * d + i] = x[t * d + i] + total(sum);
        }
}

static void multiplied(const Matrix *m, int64_t in, int64_t out, const float *x, float *y, int64_t rows, float *room) {
    product(m, in, out, x, y, rows, room);
}

/* x [rows, width] becomes the normed states after the last layer of the tokens `ids`, which stand from `start` on; their
 * keys and values are written into the text. `turns` [capacity, 3, head_dim]: cos and sin of q, k and v by position. `room` has space
 * for rows · (width + max(projected, 2 · inner) + heads · head_dim) + heads / kv_heads · capacity numbers, and the capacity
 * is a multiple of 16 not below start + rows. */
static void stepped(const Shape *s, const Layer *layers, const float *final, const void *embedding, const float *turns,
                    const Text *text, const int32_t *ids, float *x, int64_t start, int64_t rows, float *room) {
    int64_t d = s->width, h = s->head_dim, q = s->heads * h, k = s->kv_heads * h, f = s->inner;
    int64_t projected = q + 2 * k, group = s->heads / s->kv_heads, size = s->wide ? 4 : 2;
    float *y = room, *big = y + rows * d, *seen = big + rows * (projected > 2 * f ? projected : 2 * f);
    float *numbers = seen + rows * q, *scores = numbers + rows * ((d > q ? d > f ? d : f : q > f ? q : f) / 2 + 1), eps = (float)s->eps;
    for (int64_t t = 0; t < rows; t++)
        for (int64_t i = 0; i < d; i += LANES) *(floats *)(x + t * d + i) = loaded(embedding, ids[t] * d + i, (int)s->wide);
    for (int64_t l = 0; l < s->layers; l++) {
        const Layer *layer = layers + l;
        void *kv = (char *)text->all + l * text->capacity * 2 * k * size;
        for (int64_t t = 0; t < rows; t++) normed(x + t * d, layer->attention_norm, eps, d, y + t * d);
        product(&layer->qkv, d, projected, y, big, rows, numbers);
        for (int64_t t = 0; t < rows; t++) placed(s, big + t * projected, turns + (start + t) * 3 * h, kv, start + t);
        for (int64_t j = 0; j < s->kv_heads; j++) {
            Keys keys = {kv, 2 * k, j * h, k + j * h, h, (int)s->wide};
            for (int64_t t = 0; t < rows; t++) {
                int64_t at = j * group * h;
                attended(&keys, big + t * projected + at, group, start + t + 1, scores, text->capacity, seen + t * q + at);
            }
        }
        product(&layer->output, q, d, seen, y, rows, numbers);
        added(x, y, rows * d);
        for (int64_t t = 0; t < rows; t++) normed(x + t * d, layer->mlp_norm, eps, d, y + t * d);
        product(&layer->gate_up, d, 2 * f, y, big, rows, numbers);
        for (int64_t t = 0; t < rows; t++) gated(big + t * 2 * f, f, big + t * f); /* row t's place was read before */
        product(&layer->down, f, d, big, y, rows, numbers);
        added(x, y, rows * d);
    }
    for (int64_t t = 0; t < rows; t++) normed(x + t * d, final, eps, d, x + t * d);
}
