/* kNN-LM look-up: mixes the next tokens of the nearest neighbours into logits. knn_lm.py holds the same arithmetic in
 * NumPy and defines its terms. */

/* Dot products of `key` with the ACCUMULATORS rows 0, stride, 2 · stride … of `keys` [count, width]. Rows at or beyond
 * `count` are replaced by row 0. */
INLINE void key_dot_products(const int16_t *key, const int8_t *keys, int64_t width, int64_t stride, int64_t count, float *out) {
    ints sums[ACCUMULATORS] = {{0}};
    const int8_t *rows[ACCUMULATORS];
    for (int c = 0; c < ACCUMULATORS; c++) rows[c] = keys + (c * stride < count ? c * stride * width : 0);
    for (int64_t i = 0; i < width; i += 2 * LANES) {
        WideInts query = load_wide(key + i);
        for (int c = 0; c < ACCUMULATORS; c++) sums[c] += multiply_add(widen(rows[c] + i), query);
    }
    horizontal_sums_of_ints(sums, out);
}

/* Returns log Σ e^logit; writes the most likely token and its probability. */
INLINE double log_sum_exp(const float *logits, int64_t count, int32_t *token, double *probability) {
    floats most = (floats){0} - INFINITY;
    int64_t i = 0, best = 0;
    for (; i + LANES <= count; i += LANES) {
        most = max_lanes(*(const floats *)(logits + i), most);
    }
    float high = -INFINITY;
    for (int64_t j = 0; j < LANES; j++) high = most[j] > high ? most[j] : high;
    for (; i < count; i++) high = logits[i] > high ? logits[i] : high;
    while (best < count - 1 && logits[best] != high) best++;
    floats parts = {0};
    for (i = 0; i + LANES <= count; i += LANES) parts += exp_lanes(*(const floats *)(logits + i) - logits[best]);
    double sum = horizontal_sum(parts);
    for (; i < count; i++) sum += exp((double)logits[i] - logits[best]);
    *token = (int32_t)best;
    *probability = 1.0 / sum;
    return logits[best] + log(sum);
}

INLINE int64_t lower_bound(const int32_t *sorted, int64_t count, int64_t value) {
    int64_t low = 0;
    while (low < count) {
        int64_t middle = (low + count) / 2;
        if (sorted[middle] < value) low = middle + 1;
        else count = middle;
    }
    return low;
}

/* Finds the best-scoring candidates for a key after a tail of MAX_MATCH tokens. The last token of the tail is the current
 * one; numbers below −1 pad a tail that begins before the text. Candidates are the positions whose token equals the
 * current one, at most MAX_CANDIDATES of them at equal distances. */
INLINE void find_neighbours(const KnnMemory *m, const int16_t *key, float scale, const int32_t *tail, Neighbours *f) {
    int32_t token = tail[MAX_MATCH - 1];
    int64_t low = lower_bound(m->last, m->count, token), high = lower_bound(m->last, m->count, (int64_t)token + 1);
    int64_t stride = (high - low + MAX_CANDIDATES - 1) / MAX_CANDIDATES, least = 0;
    float scores[NEIGHBOURS], per_product = scale / 127.0f / (float)m->gate[0];
    float best_run = (float)(m->gate[1] > 0.0 ? m->gate[1] * MAX_MATCH : m->gate[1]) + 1e-4f; /* 1e-4 covers rounding */
    f->candidates = high - low;
    f->count = 0;
    for (int64_t first = low; first < high; first += ACCUMULATORS * stride) {
        float products[ACCUMULATORS];
        key_dot_products(key, m->keys + first * m->width, m->width, stride, high - first, products);
        for (int64_t c = 0, at = first; c < ACCUMULATORS && at < high; c++, at += stride) {
            /* Skip a candidate whose score cannot suffice, before its text is read. */
            if (f->count == NEIGHBOURS && products[c] * per_product + best_run < scores[least]) continue;
            int64_t place = m->places[at], run = 1;
            while (run < MAX_MATCH && place >= run && m->ids[place - run] == tail[MAX_MATCH - 1 - run]) run++;
            float cosine = products[c] * (scale / 127.0f);
            float score = cosine / (float)m->gate[0] + (float)m->gate[1] * (float)run;
            int64_t to = least;
            if (f->count < NEIGHBOURS) to = f->count++;
            else if (!(score > scores[least])) continue;
            scores[to] = score, f->cosine[to] = cosine, f->run[to] = (float)run, f->next[to] = m->ids[place + 1];
            if (f->count == NEIGHBOURS)
                for (int64_t i = least = 0; i < NEIGHBOURS; i++) least = scores[i] < scores[least] ? i : least;
        }
    }
}

/* Returns λ, the weight of the kNN distribution; writes that distribution as `distinct` tokens and their probabilities. */
INLINE double mixture_weight(const KnnMemory *m, const Neighbours *f, double top, int32_t token, int32_t *tokens, double *mass,
                             int64_t *distinct) {
    const double ceiling = 0.95, *weights = m->gate + 3;
    float scores[NEIGHBOURS], most = -INFINITY, cosine = -INFINITY, run = 0.0f;
    for (int64_t i = 0; i < f->count; i++) {
        scores[i] = f->cosine[i] / (float)m->gate[0] + (float)m->gate[1] * f->run[i];
        most = scores[i] > most ? scores[i] : most;
        cosine = f->cosine[i] > cosine ? f->cosine[i] : cosine;
        run = f->run[i] > run ? f->run[i] : run;
    }
    double sum = 0.0;
    *distinct = 0;
    for (int64_t i = 0; i < f->count; i++) {
        double weight = exp((double)(scores[i] - most));
        int64_t k = 0;
        while (k < *distinct && tokens[k] != f->next[i]) k++;
        if (k == *distinct) tokens[k] = f->next[i], mass[(*distinct)++] = 0.0;
        mass[k] += weight;
        sum += weight;
    }
    int64_t best = 0;
    for (int64_t k = 0; k < *distinct; k++) {
        mass[k] /= sum;
        best = mass[k] > mass[best] ? k : best;
    }
    const double features[FEATURES] = {mass[best], cosine, run / (double)MAX_MATCH, top, tokens[best] == token,
                                       log1p((double)f->candidates) / 8.0, mass[best] * (1.0 - top)};
    double z = m->gate[2];
    for (int64_t i = 0; i < FEATURES; i++) z += weights[i] * features[i];
    z = z < -30.0 ? -30.0 : z > 30.0 ? 30.0 : z;
    double lambda = m->gate[3 + FEATURES] / (1.0 + exp(-z));
    return lambda < ceiling ? lambda : ceiling;
}

/* Mixes the memory into logits [rows, vocabulary], in place. hidden [rows, inner], tails [rows, MAX_MATCH]. */
static void mix_knn(const KnnMemory *m, const float *hidden, const int32_t *tails, float *logits, int64_t rows) {
    for (int64_t t = 0; t < rows; t++) {
        float key[MAX_KEY_WIDTH], scale, *row = logits + t * m->vocabulary;
        const float *h = hidden + t * m->inner;
        double squares = 0.0;
        for (int64_t j = 0; j < m->width; j += 4) {
            floats sums[4] = {{0}};
            for (int64_t i = 0; i < m->inner; i += LANES)
                for (int k = 0; k < 4; k++)
                    sums[k] += *(const floats *)(h + i) * *(const floats *)(m->basis + (j + k) * m->inner + i);
            for (int k = 0; k < 4; k++) key[j + k] = horizontal_sum(sums[k]), squares += (double)key[j + k] * key[j + k];
        }
        float norm = (float)sqrt(squares);
        for (int64_t j = 0; j < m->width; j++) key[j] /= norm > 1e-12f ? norm : 1e-12f;
        int16_t quantized[MAX_KEY_WIDTH];
        quantize_rows(key, m->width, 1, quantized, &scale);
        Neighbours f;
        find_neighbours(m, quantized, scale, tails + t * MAX_MATCH, &f);
        if (!f.count) continue;
        int32_t tokens[NEIGHBOURS], token;
        double mass[NEIGHBOURS], top, norm_of_row = log_sum_exp(row, m->vocabulary, &token, &top);
        int64_t distinct;
        double lambda = mixture_weight(m, &f, top, token, tokens, mass, &distinct);
        if (!(lambda > 0.0)) continue;
        for (int64_t k = 0; k < distinct; k++) {
            if (tokens[k] < 0 || tokens[k] >= m->vocabulary) continue; /* a damaged memory file */
            double old = row[tokens[k]], added = log(mass[k] * (lambda / (1.0 - lambda))) + norm_of_row;
            double high = old > added ? old : added;
            row[tokens[k]] = (float)(isnan(old) || isnan(added) ? NAN : high + log(exp(old - high) + exp(added - high)));
        }
    }
}

/* tokens[t] = argmax and norms[t] = log Σ e^logit of row t of logits [rows, count]. */
static void argmax_rows(const float *logits, int64_t count, int32_t *tokens, double *norms, int64_t rows) {
    double top;
    for (int64_t t = 0; t < rows; t++) norms[t] = log_sum_exp(logits + t * count, count, tokens + t, &top);
}
