/* The forward pass of a Llama-shaped model. _kernel.c includes this file once per register width. */

/* LANES numbers from index `at` on: fp32, bf16 (the upper half of an fp32) or fp16. */
INLINE floats load_floats(const void *numbers, int64_t at, int type) {
    if (type == FP32) return *(const floats *)((const float *)numbers + at);
    const uint16_t *half = (const uint16_t *)numbers + at;
#if LANES == 8
    if (type == FP16) return (floats)_mm256_cvtph_ps(_mm_loadu_si128((const void *)half));
    uints bits = (uints)_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)half));
#else
    uints bits = __builtin_convertvector(*(const halves *)half, uints);
    if (type == FP16) {
        floats size = (floats)((bits & 0x7fff) << 13) * 0x1p112f;
        uints infinite = (uints)((bits & 0x7fff) > 0x7bff) & 0x7f800000;
        return (floats)((uints)size | infinite | (bits & 0x8000) << 16);
    }
#endif
    return (floats)(bits << 16);
}

/* Rounds to nearest, ties to even. */
INLINE void store_float(void *numbers, int64_t at, float value, int type) {
    if (type == FP32) {
        ((float *)numbers)[at] = value;
        return;
    }
    uint32_t bits, sign;
    memcpy(&bits, &value, 4);
    sign = bits >> 16 & 0x8000;
    if (type == FP16) {
        float size = fabsf(value) * 0x1p-112f;
        memcpy(&bits, &size, 4);
        bits = (bits + 0xfff + (bits >> 13 & 1)) >> 13;
        bits = sign | (isnan(value) ? 0x7e00 : bits > 0x7c00 ? 0x7c00 : bits);
    } else bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    ((uint16_t *)numbers)[at] = (uint16_t)bits;
}

/* Quantises x [rows, n] to 16-bit integers with one scale per row: x ≈ scale · number. `limit` keeps every sum of products
 * with int8 weights below 2^31, so that the sums are exact in any order. A row with a NaN gets the scale NaN. Every
 * ROW_GROUP rows are interleaved as the rows of a panel are: PANEL_COLUMNS numbers of each in turn. */
INLINE void quantize_rows(const float *x, int64_t n, int64_t rows, int16_t *numbers, float *scales) {
    float limit = fminf(32767.0f, 8.0e6f * 2 * LANES / (float)n);
    for (int64_t t = 0; t < rows; t++, x += n) {
        int64_t first = t / ROW_GROUP * ROW_GROUP, grouped = rows - first < ROW_GROUP ? rows - first : ROW_GROUP;
        int16_t *to = numbers + first * n + (t - first) * PANEL_COLUMNS;
        floats magnitudes = {0}, zero_or_nan = {0};
        for (int64_t i = 0; i < n; i += LANES) {
            floats v = *(const floats *)(x + i);
            magnitudes = max_lanes((floats)((ints)v & 0x7fffffff), magnitudes);
            zero_or_nan += v * 0.0f;
        }
        float top = max_of((const float *)&magnitudes, LANES);
        float factor = top > 0.0f ? limit / top : 0.0f;
        for (int64_t k = 0; k < n; k += PANEL_COLUMNS, to += grouped * PANEL_COLUMNS)
            for (int i = 0; i < PANEL_COLUMNS; i += LANES) {
                ints integers = round_to_int(*(const floats *)(x + k + i) * factor);
                *(shorts *)(to + i) = __builtin_convertvector(integers, shorts);
            }
        scales[t] = top / limit + horizontal_sum(zero_or_nan);
    }
}

/* Products of `outs` rows of a panel, from its row j on, with `rows` rows of x: outs · rows sums, each in one vector
 * register. The rows of a panel are interleaved, PANEL_COLUMNS numbers of each in turn, so that a panel is one stream.
 * `cold`: the panel is not in the cache yet. */
INLINE void multiply_block(const int8_t *panel, int64_t in, int j, const int16_t *x, int rows, int outs, int cold, float *sums) {
    ints accumulators[ACCUMULATORS] = {{0}};
    const int8_t *from = panel + j * PANEL_COLUMNS;
    for (int64_t k = 0; k < in; k += PANEL_COLUMNS, from += PANEL_ROWS * PANEL_COLUMNS, x += rows * PANEL_COLUMNS) {
        if (cold) /* the hardware prefetcher stops at page boundaries */
            for (int i = 0; i < PANEL_ROWS * PANEL_COLUMNS; i += 64) __builtin_prefetch(from + PREFETCH_BYTES + i);
        for (int c = 0; c < PANEL_COLUMNS; c += 2 * LANES)
            if (rows == 1) {
                WideInts numbers = load_wide(x + c);
                for (int o = 0; o < outs; o++) accumulators[o] += multiply_add(widen(from + o * PANEL_COLUMNS + c), numbers);
            } else {
                WideInts weights[ACCUMULATORS];
                for (int o = 0; o < outs; o++) weights[o] = widen(from + o * PANEL_COLUMNS + c);
                for (int t = 0; t < rows; t++) {
                    WideInts numbers = load_wide(x + t * PANEL_COLUMNS + c);
                    KEEP_IN_REGISTER(numbers);
                    for (int o = 0; o < outs; o++) accumulators[o * rows + t] += multiply_add(weights[o], numbers);
                }
            }
    }
    float totals[ACCUMULATORS];
    horizontal_sums_of_ints(accumulators, totals);
    for (int t = 0; t < rows; t++)
        for (int o = 0; o < outs; o++) sums[t * PANEL_ROWS + j + o] = totals[o * rows + t];
}

/* Products of a panel with `rows` ≤ ROW_GROUP rows of x: sums [rows, PANEL_ROWS]. */
INLINE void multiply_panel(const int8_t *panel, int64_t in, const int16_t *x, int64_t rows, int cold, float *sums) {
    if (rows == 1) multiply_block(panel, in, 0, x, 1, 8, 1, sums);
    else if (rows == 2)
        for (int j = 0; j < PANEL_ROWS; j += 4) multiply_block(panel, in, j, x, 2, 4, 1, sums);
    else if (rows == 3)
        for (int j = 0; j < PANEL_ROWS; j += 2) multiply_block(panel, in, j, x, 3, 2, 1, sums);
    else if (cold)
        for (int j = 0; j < PANEL_ROWS; j += 2) multiply_block(panel, in, j, x, 4, 2, 1, sums);
    else
        for (int j = 0; j < PANEL_ROWS; j += 2) multiply_block(panel, in, j, x, 4, 2, 0, sums);
}

/* Writes `count` outputs of a panel, from output o on: scaled, plus the bias or what y already holds. */
INLINE void write_outputs(const MatmulTask *p, int64_t o, int64_t count, const float *sums, float scale, float *y) {
    const float *addend = p->accumulate ? y : p->bias ? p->bias + o : NULL;
    if (count == PANEL_ROWS)
        for (int j = 0; j < PANEL_ROWS; j += LANES) {
            floats v = *(const floats *)(sums + j) * (*(const floats *)(p->scale + o + j) * scale);
            *(floats *)(y + j) = addend ? v + *(const floats *)(addend + j) : v;
        }
    else
        for (int64_t j = 0; j < count; j++) y[j] = sums[j] * (p->scale[o + j] * scale) + (addend ? addend[j] : 0.0f);
}

/* Panels `from` ≤ i < `to` of a product. Not inlined: inlined copies might round differently, and the result must not
 * depend on how panels are divided among threads. */
NOINLINE void multiply_panels(const MatmulTask *p, int64_t from, int64_t to) {
    for (int64_t o = from * PANEL_ROWS; o < to * PANEL_ROWS; o += PANEL_ROWS)
        for (int64_t t = 0; t < p->rows; t += ROW_GROUP) { /* the first group of rows brings the panel into the L1 cache */
            float sums[ROW_GROUP * PANEL_ROWS];
            int64_t grouped = p->rows - t < ROW_GROUP ? p->rows - t : ROW_GROUP,
                    count = p->out - o < PANEL_ROWS ? p->out - o : PANEL_ROWS;
            multiply_panel(p->weight + o * p->in, p->in, p->numbers + t * p->in, grouped, !t, sums);
            for (int64_t r = 0; r < grouped; r++)
                write_outputs(p, o, count, sums + r * PANEL_ROWS, p->scales[t + r], p->y + (t + r) * p->out + o);
        }
}

static void matmul_task(const void *arguments, int64_t part, int64_t thread) {
    (void)thread;
    const MatmulTask *p = arguments;
    int64_t panels = (p->out + PANEL_ROWS - 1) / PANEL_ROWS, from = part * p->panels_per_part, to = from + p->panels_per_part;
    multiply_panels(p, from, to < panels ? to : panels);
}

/* Runs a product, in parallel if the pool was acquired and the matrix is large enough. */
INLINE void matmul(MatmulTask p, int parallel) {
    int64_t panels = (p.out + PANEL_ROWS - 1) / PANEL_ROWS;
    p.panels_per_part = PART_BYTES / (PANEL_ROWS * p.in) + 1;
    if (parallel && panels > p.panels_per_part)
        run_parallel(matmul_task, &p, (panels + p.panels_per_part - 1) / p.panels_per_part);
    else multiply_panels(&p, 0, panels);
}

/* y [rows, out] = x [rows, in] Wᵀ + bias, plus the LoRA term if there is one. `in` is a multiple of PANEL_COLUMNS.
 * `scratch` holds rows · (in / 2 + 1 + 2 · rank + 1) floats. */
INLINE void linear(const Matrix *m, int64_t in, int64_t out, const float *x, float *y, int64_t rows, float *scratch, int parallel) {
    int16_t *numbers = (int16_t *)(scratch + rows);
    quantize_rows(x, in, rows, numbers, scratch);
    matmul((MatmulTask){m->weight, m->scale, m->bias, in, out, rows, 0, numbers, scratch, y, 0}, parallel);
    if (!m->rank) return;
    float *low = scratch + rows * (in / 2 + 1), *scales = low + rows * m->rank;
    matmul((MatmulTask){m->lora_a, m->lora_a_scale, NULL, in, m->rank, rows, 0, numbers, scratch, low, 0}, parallel);
    numbers = (int16_t *)(scales + rows);
    quantize_rows(low, m->rank, rows, numbers, scales);
    matmul((MatmulTask){m->lora_b, m->lora_b_scale, NULL, m->rank, out, rows, 0, numbers, scales, y, 1}, parallel);
}

INLINE void rms_norm(const float *x, const float *weight, float eps, int64_t d, float *y) {
    floats squares = {0};
    for (int64_t i = 0; i < d; i += LANES) {
        floats v = *(const floats *)(x + i);
        squares += v * v;
    }
    float factor = 1.0f / sqrtf(horizontal_sum(squares) / (float)d + eps);
    for (int64_t i = 0; i < d; i += LANES) *(floats *)(y + i) = *(const floats *)(x + i) * factor * *(const floats *)(weight + i);
}

/* Rotates q and k of one position in place (RoPE; rotated pairs are adjacent) and writes k and v into the KV cache. */
INLINE void rotate_and_store(const ModelShape *s, float *qkv, const float *rotation, void *kv, int64_t position) {
    int64_t h = s->head_dim, q = s->heads * h, k = s->kv_heads * h;
    for (int64_t i = 0; i < q + k; i += 2) {
        const float *turn = rotation + (i < q ? 0 : h) + i % h; /* cos, sin */
        float a = qkv[i], b = qkv[i + 1];
        qkv[i] = a * turn[0] - b * turn[1];
        qkv[i + 1] = a * turn[1] + b * turn[0];
    }
    for (int64_t i = 0; i < 2 * k; i++) store_float(kv, position * 2 * k + i, qkv[q + i], (int)s->kv_type);
}

/* Prefetches the key or value of position p. The hardware prefetcher does not follow a stride this large. */
INLINE void prefetch_row(const HeadView *k, int64_t p, int64_t at, int type) {
    int64_t size = type == FP32 ? 4 : 2;
    const char *from = (const char *)k->kv + ((p - k->first) * k->stride + at) * size;
    for (int64_t i = 0; i < k->width * size; i += 64) __builtin_prefetch(from + i);
}

/* Converts the keys (or values; `at` selects) of positions `from` ≤ p < `to` to fp32 in `buffer`, for all queries of a
 * tile. Returns a view of the buffer. */
INLINE HeadView convert_rows(const HeadView *k, int64_t at, int64_t from, int64_t to, float *buffer, int type) {
    for (int64_t p = from; p < to; p++) {
        prefetch_row(k, p + PREFETCH_POSITIONS, at, type);
        for (int64_t i = 0; i < k->width; i += LANES)
            *(floats *)(buffer + (p - from) * k->width + i) = load_floats(k->kv, (p - k->first) * k->stride + at + i, type);
    }
    return (HeadView){buffer, k->width, 0, 0, k->width, from};
}

/* Dot products of `heads` ≤ 2 queries [heads, width] with the keys of `count` ≤ 4 positions from p on, into
 * scores [heads, capacity]. */
INLINE void score_positions(const HeadView *k, const float *q, int64_t p, int count, float *scores, int64_t capacity, int heads,
                            int type) {
    floats sums[ACCUMULATORS] = {{0}};
    for (int64_t i = 0; i < k->width; i += LANES)
        for (int j = 0; j < count; j++) {
            floats key = load_floats(k->kv, (p + j - k->first) * k->stride + k->key + i, type);
            KEEP_IN_REGISTER(key);
            for (int g = 0; g < heads; g++) sums[4 * g + j] += *(const floats *)(q + g * k->width + i) * key;
        }
    float products[ACCUMULATORS];
    horizontal_sums(sums, products);
    for (int g = 0; g < heads; g++)
        for (int j = 0; j < count; j++) scores[g * capacity + p + j] = products[4 * g + j];
}

/* As `score_positions`, for positions `from` ≤ p < `to`. `cold`: the keys are not in the cache yet. */
INLINE void score_range(const HeadView *k, const float *q, int64_t from, int64_t to, float *scores, int64_t capacity, int heads,
                        int type, int cold) {
    int64_t p = from;
    for (; p + 4 <= to; p += 4) {
        if (cold)
            for (int j = 0; j < 4; j++) prefetch_row(k, p + j + PREFETCH_POSITIONS, k->key, type);
        score_positions(k, q, p, 4, scores, capacity, heads, type);
    }
    for (; p < to; p++) score_positions(k, q, p, 1, scores, capacity, heads, type);
}

/* Softmax of scores [count], in place. The buffer extends to the next multiple of LANES. */
INLINE void softmax(float *scores, int64_t count) {
    for (int64_t p = count; p % LANES; p++) scores[p] = -INFINITY;
    float most = max_of(scores, (count + LANES - 1) / LANES * LANES);
    floats sums = {0};
    for (int64_t p = 0; p < count; p += LANES) {
        floats part = exp_lanes(*(floats *)(scores + p) - most);
        *(floats *)(scores + p) = part;
        sums += part; /* padding adds e^-87 each: nothing in fp32 */
    }
    float factor = 1.0f / horizontal_sum(sums);
    for (int64_t p = 0; p < count; p += LANES) *(floats *)(scores + p) *= factor;
}

/* Adds the weighted values of positions `from` ≤ p < `to` to `vectors` ≤ 4 vectors, from number i on, of the outputs of
 * `heads` ≤ 2 queries. */
INLINE void add_value_vectors(const HeadView *k, const float *weights, int64_t capacity, int64_t from, int64_t to, int64_t i,
                              int vectors, float *out, int heads, int type, int cold) {
    floats sums[ACCUMULATORS];
    for (int g = 0; g < heads; g++)
        for (int j = 0; j < vectors; j++) sums[4 * g + j] = *(const floats *)(out + g * k->width + i + j * LANES);
    for (int64_t p = from; p < to; p++) {
        if (cold && !i) prefetch_row(k, p + PREFETCH_POSITIONS, k->value, type);
        for (int j = 0; j < vectors; j++) {
            floats value = load_floats(k->kv, (p - k->first) * k->stride + k->value + i + j * LANES, type);
            KEEP_IN_REGISTER(value);
            for (int g = 0; g < heads; g++) sums[4 * g + j] += weights[g * capacity + p] * value;
        }
    }
    for (int g = 0; g < heads; g++)
        for (int j = 0; j < vectors; j++) *(floats *)(out + g * k->width + i + j * LANES) = sums[4 * g + j];
}

/* Adds the weighted values of positions `from` ≤ p < `to` to the outputs of `heads` ≤ 2 queries. */
INLINE void add_values(const HeadView *k, const float *weights, int64_t capacity, int64_t from, int64_t to, float *out, int heads,
                       int type, int cold) {
    int64_t i = 0;
    for (; i + 4 * LANES <= k->width; i += 4 * LANES)
        add_value_vectors(k, weights, capacity, from, to, i, 4, out, heads, type, cold);
    for (; i < k->width; i += LANES) add_value_vectors(k, weights, capacity, from, to, i, 1, out, heads, type, cold);
}

/* Causal attention of `rows` ≤ QUERY_TILE rows, for the `group` query heads that share one key head. Row t attends to
 * start + t + 1 positions. Positions are processed in blocks that stay in the L1 cache for all heads and rows.
 * q and out hold `group` heads [group, width] per row; consecutive rows are `q_stride` and `out_stride` numbers apart.
 * scores [rows · group, capacity]; the capacity is a multiple of KV_BLOCK. */
INLINE void attend_tile(const HeadView *k, const float *q, int64_t q_stride, int64_t group, int64_t start, int64_t rows,
                        float *scores, int64_t capacity, float *out, int64_t out_stride, int type) {
    int64_t count = start + rows, w = k->width;
    float buffer[KV_BLOCK * MAX_HEAD_DIM];
    int convert = rows > 1 && type != FP32 && w <= MAX_HEAD_DIM;
    for (int64_t from = 0; from < count; from += KV_BLOCK) {
        HeadView view =
            convert ? convert_rows(k, k->key, from, from + KV_BLOCK < count ? from + KV_BLOCK : count, buffer, type) : *k;
        for (int64_t t = 0; t < rows; t++) {
            int64_t to = from + KV_BLOCK < start + t + 1 ? from + KV_BLOCK : start + t + 1, g = 0;
            for (; g < group; g += 2) {
                const float *queries = q + t * q_stride + g * w;
                float *into = scores + (t * group + g) * capacity;
                int heads = g + 2 > group ? 1 : 2;
                if (convert && heads == 2) score_range(&view, queries, from, to, into, capacity, 2, FP32, 0);
                else if (convert) score_range(&view, queries, from, to, into, capacity, 1, FP32, 0);
                else if (heads == 2) score_range(&view, queries, from, to, into, capacity, 2, type, 1);
                else score_range(&view, queries, from, to, into, capacity, 1, type, 1);
            }
        }
    }
    for (int64_t t = 0; t < rows; t++) {
        memset(out + t * out_stride, 0, (size_t)(group * w) * sizeof(float));
        for (int64_t g = 0; g < group; g++) softmax(scores + (t * group + g) * capacity, start + t + 1);
    }
    for (int64_t from = 0; from < count; from += KV_BLOCK) {
        HeadView view =
            convert ? convert_rows(k, k->value, from, from + KV_BLOCK < count ? from + KV_BLOCK : count, buffer, type) : *k;
        for (int64_t t = 0; t < rows; t++) {
            int64_t to = from + KV_BLOCK < start + t + 1 ? from + KV_BLOCK : start + t + 1, g = 0;
            for (; g < group; g += 2) {
                const float *weights = scores + (t * group + g) * capacity;
                float *into = out + t * out_stride + g * w;
                int heads = g + 2 > group ? 1 : 2;
                if (convert && heads == 2) add_values(&view, weights, capacity, from, to, into, 2, FP32, 0);
                else if (convert) add_values(&view, weights, capacity, from, to, into, 1, FP32, 0);
                else if (heads == 2) add_values(&view, weights, capacity, from, to, into, 2, type, 1);
                else add_values(&view, weights, capacity, from, to, into, 1, type, 1);
            }
        }
    }
}

/* out [inner] = silu(gate) · up, of gate_up [2 · inner]; out may alias gate_up. */
INLINE void swiglu(const float *gate_up, int64_t inner, float *out) {
    for (int64_t i = 0; i < inner; i += LANES) {
        floats gate = *(const floats *)(gate_up + i), up = *(const floats *)(gate_up + inner + i);
        *(floats *)(out + i) = gate / (1.0f + exp_lanes(-gate)) * up;
    }
}

INLINE void add_in_place(float *x, const float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) *(floats *)(x + i) += *(const floats *)(y + i);
}

/* out = x + x Cᵀ; x and out [rows, d], C = map [d, d]; d is a multiple of LANES and of 4. */
static void apply_final_map(const float *x, const float *map, float *out, int64_t d, int64_t rows) {
    for (int64_t i = 0; i < d; i += 4)
        for (int64_t t = 0; t < rows; t++) {
            floats sums[4] = {{0}};
            for (int64_t k = 0; k < d; k += LANES)
                for (int j = 0; j < 4; j++) sums[j] += *(const floats *)(map + (i + j) * d + k) * *(const floats *)(x + t * d + k);
            for (int j = 0; j < 4; j++) out[t * d + i + j] = x[t * d + i + j] + horizontal_sum(sums[j]);
        }
}

static void multiply_matrix(const Matrix *m, int64_t in, int64_t out, const float *x, float *y, int64_t rows, float *scratch,
                            int parallel) {
    linear(m, in, out, x, y, rows, scratch, parallel);
}

/* Attention of one tile of rows and one key head; parts are numbered tile · kv_heads + key head. */
NOINLINE void attention_task(const void *arguments, int64_t part, int64_t thread) {
    const AttentionTask *a = arguments;
    const ModelShape *s = a->shape;
    int64_t h = s->head_dim, group = s->heads / s->kv_heads, q = s->heads * h, k = s->kv_heads * h, w = q + 2 * k;
    int64_t j = part % s->kv_heads, first = part / s->kv_heads * QUERY_TILE;
    int64_t rows = a->rows - first < QUERY_TILE ? a->rows - first : QUERY_TILE, start = a->start + first;
    HeadView view = {a->kv, 2 * k, j * h, k + j * h, h, 0};
    const float *from = a->projected + first * w + j * group * h;
    float *to = a->out + first * q + j * group * h, *scores = a->scores + thread * a->scores_per_thread;
    if (s->kv_type == FP16) attend_tile(&view, from, w, group, start, rows, scores, a->capacity, to, q, FP16);
    else if (s->kv_type == FP32) attend_tile(&view, from, w, group, start, rows, scores, a->capacity, to, q, FP32);
    else attend_tile(&view, from, w, group, start, rows, scores, a->capacity, to, q, BF16);
}

INLINE void attention(const AttentionTask *a, int parallel) {
    int64_t parts = (a->rows + QUERY_TILE - 1) / QUERY_TILE * a->shape->kv_heads;
    if (parallel && a->start + a->rows > PARALLEL_FROM) run_parallel(attention_task, a, parts);
    else
        for (int64_t i = 0; i < parts; i++) attention_task(a, i, 0);
}

/* Appends the tokens `ids` [rows] at positions start, start + 1 … and computes their final normed hidden states, in
 * x [rows, width]. Their keys and values are written into the cache. Only the last `wanted` rows pass through the whole
 * last layer; the other rows of x are undefined then.
 *
 * rotations [capacity, 3, head_dim]: cos and sin of q, k and v by position. The capacity of the cache is a multiple of 16
 * and at least start + rows. `scratch` holds rows · (width + max(projected, 2 · inner) + heads · head_dim + widest input of
 * a product / 2 + 2 + 2 · rank) floats and, for each thread, min(rows, QUERY_TILE) · heads / kv_heads · capacity. */
static void forward_step(const ModelShape *s, const Layer *layers, const float *final, const void *embedding,
                         const float *rotations, const KVCache *cache, const int32_t *ids, float *x, int64_t start, int64_t rows,
                         int64_t wanted, float *scratch, int parallel) {
    int64_t d = s->width, h = s->head_dim, q = s->heads * h, k = s->kv_heads * h, f = s->inner;
    int64_t projected = q + 2 * k, group = s->heads / s->kv_heads, size = s->kv_type == FP32 ? 4 : 2;
    float *y = scratch, *big = y + rows * d, *attended = big + rows * (projected > 2 * f ? projected : 2 * f);
    float *numbers = attended + rows * q, eps = (float)s->eps;
    float *scores = numbers + rows * ((d > q ? d > f ? d : f : q > f ? q : f) / 2 + 2 + 2 * s->rank);
    int64_t scores_per_thread = (rows < QUERY_TILE ? rows : QUERY_TILE) * group * cache->capacity;
    for (int64_t t = 0; t < rows; t++)
        for (int64_t i = 0; i < d; i += LANES)
            *(floats *)(x + t * d + i) = load_floats(embedding, ids[t] * d + i, (int)s->embedding_type);
    for (int64_t l = 0; l < s->layers; l++) {
        const Layer *layer = layers + l;
        void *kv = (char *)cache->kv + l * cache->capacity * 2 * k * size;
        for (int64_t t = 0; t < rows; t++) rms_norm(x + t * d, layer->attention_norm, eps, d, y + t * d);
        linear(&layer->qkv, d, projected, y, big, rows, numbers, parallel);
        for (int64_t t = 0; t < rows; t++)
            rotate_and_store(s, big + t * projected, rotations + (start + t) * 3 * h, kv, start + t);
        const float *queries = big;
        if (l == s->layers - 1) {
            int64_t skipped = rows - wanted;
            queries += skipped * projected, x += skipped * d, start += skipped, rows = wanted;
        }
        AttentionTask a = {s, kv, queries, attended, scores, start, rows, cache->capacity, scores_per_thread};
        attention(&a, parallel);
        linear(&layer->output, q, d, attended, y, rows, numbers, parallel);
        add_in_place(x, y, rows * d);
        for (int64_t t = 0; t < rows; t++) rms_norm(x + t * d, layer->mlp_norm, eps, d, y + t * d);
        linear(&layer->gate_up, d, 2 * f, y, big, rows, numbers, parallel);
        for (int64_t t = 0; t < rows; t++) swiglu(big + t * 2 * f, f, big + t * f); /* overwrites only rows already read */
        linear(&layer->down, f, d, big, y, rows, numbers, parallel);
        add_in_place(x, y, rows * d);
    }
    for (int64_t t = 0; t < rows; t++) rms_norm(x + t * d, final, eps, d, x + t * d);
}
