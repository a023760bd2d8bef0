/* What is recalled at a position, mixed into its logits: the arithmetic of recall.py, which says what it means. */

/* Products of a key with CHAINS others, `each` rows of `keys` apart; where there are fewer, the first again. */
INLINE void dots(const int16_t *key, const int8_t *keys, int64_t width, int64_t each, int64_t count, float *out) {
    ints all[CHAINS] = {{0}};
    const int8_t *others[CHAINS];
    for (int c = 0; c < CHAINS; c++) others[c] = keys + (c * each < count ? c * each * width : 0);
    for (int64_t i = 0; i < width; i += 2 * LANES) {
        Pair own = given(key + i);
        for (int c = 0; c < CHAINS; c++) all[c] += paired(widened(others[c] + i), own);
    }
    whole_totals(all, out);
}

/* log Σ e^logit; the likeliest token and its probability. */
INLINE double summed(const float *logits, int64_t count, int32_t *token, double *top) {
    floats most = (floats){0} - INFINITY;
    int64_t i = 0, best = 0;
    for (; i + LANES <= count; i += LANES) {
        most = greater(*(const floats *)(logits + i), most);
    }
    float high = -INFINITY;
    for (int64_t j = 0; j < LANES; j++) high = most[j] > high ? most[j] : high;
    for (; i < count; i++) high = logits[i] > high ? logits[i] : high;
    while (best < count - 1 && logits[best] != high) best++;
    floats parts = {0};
    for (i = 0; i + LANES <= count; i += LANES) parts += exponential(*(const floats *)(logits + i) - logits[best]);
    double sum = total(parts);
    for (; i < count; i++) sum += exp((double)logits[i] - logits[best]);
    *token = (int32_t)best;
    *top = 1.0 / sum;
    return logits[best] + log(sum);
}

INLINE int64_t lower_bound(const int32_t *sorted, int64_t count, int32_t value) {
    int64_t low = 0;
    while (low < count) {
        int64_t middle = (low + count) / 2;
        if (sorted[middle] < value) low = middle + 1;
        else count = middle;
    }
    return low;
}

/* The best candidates after a tail of tokens, whose last stands at LONGEST − 1; before its first stand numbers below −1. */
INLINE void found_best(const Memory *m, const int16_t *key, float scale, const int32_t *tail, Found *f) {
    int32_t wanted = tail[LONGEST - 1];
    int64_t low = lower_bound(m->last, m->count, wanted), high = lower_bound(m->last, m->count, wanted + 1);
    int64_t each = (high - low + MOST - 1) / MOST, least = 0;
    float scores[NEAREST], closer = scale / 127.0f / (float)m->trust[0];
    float longest = (float)(m->trust[1] > 0.0 ? m->trust[1] * LONGEST : m->trust[1]) + 1e-4f; /* and rounding */
    f->all = high - low;
    f->count = 0;
    for (int64_t first = low; first < high; first += CHAINS * each) {
        float cosines[CHAINS];
        dots(key, m->keys + first * m->width, m->width, each, high - first, cosines);
        for (int64_t c = 0, at = first; c < CHAINS && at < high; c++, at += each) {
            if (f->count == NEAREST && cosines[c] * closer + longest < scores[least]) continue; /* its text stays unread */
            int64_t place = m->places[at], run = 1;
            while (run < LONGEST && place >= run && m->ids[place - run] == tail[LONGEST - 1 - run]) run++;
            float cosine = cosines[c] * (scale / 127.0f);
            float score = cosine / (float)m->trust[0] + (float)m->trust[1] * (float)run;
            int64_t to = least;
            if (f->count < NEAREST) to = f->count++;
            else if (!(score > scores[least])) continue;
            scores[to] = score, f->cosine[to] = cosine, f->run[to] = (float)run, f->next[to] = m->ids[place + 1];
            if (f->count == NEAREST)
                for (int64_t i = least = 0; i < NEAREST; i++) least = scores[i] < scores[least] ? i : least;
        }
    }
}

/* The share of λ of the candidates; the tokens they name (`kinds` of them) and their masses. */
INLINE double judged(const Memory *m, const Found *f, double top, int32_t token, int32_t *said, double *mass, int64_t *kinds) {
    const double ceiling = 0.95, *weights = m->trust + 3;
    float scores[NEAREST], most = -INFINITY, cosine = -INFINITY, run = 0.0f;
    for (int64_t i = 0; i < f->count; i++) {
        scores[i] = f->cosine[i] / (float)m->trust[0] + (float)m->trust[1] * f->run[i];
        most = scores[i] > most ? scores[i] : most;
        cosine = f->cosine[i] > cosine ? f->cosine[i] : cosine;
        run = f->run[i] > run ? f->run[i] : run;
    }
    double sum = 0.0;
    *kinds = 0;
    for (int64_t i = 0; i < f->count; i++) {
        double weight = exp((double)(scores[i] - most));
        int64_t k = 0;
        while (k < *kinds && said[k] != f->next[i]) k++;
        if (k == *kinds) said[k] = f->next[i], mass[(*kinds)++] = 0.0;
        mass[k] += weight;
        sum += weight;
    }
    int64_t best = 0;
    for (int64_t k = 0; k < *kinds; k++) {
        mass[k] /= sum;
        best = mass[k] > mass[best] ? k : best;
    }
    const double features[FEATURES] = {mass[best], cosine, run / (double)LONGEST, top, said[best] == token,
                                       log1p((double)f->all) / 8.0, mass[best] * (1.0 - top)};
    double at = m->trust[2];
    for (int64_t i = 0; i < FEATURES; i++) at += weights[i] * features[i];
    at = at < -30.0 ? -30.0 : at > 30.0 ? 30.0 : at;
    double share = m->trust[3 + FEATURES] / (1.0 + exp(-at));
    return share < ceiling ? share : ceiling;
}

/* Adds what is recalled to rows of logits [rows, vocabulary]; hidden [rows, inner], tails [rows, LONGEST]. */
static void recalled(const Memory *m, const float *hidden, const int32_t *tails, float *logits, int64_t rows) {
    for (int64_t t = 0; t < rows; t++) {
        float key[MOST_WIDTH], scale, *row = logits + t * m->vocabulary;
        const float *h = hidden + t * m->inner;
        double squares = 0.0;
        for (int64_t j = 0; j < m->width; j += 4) {
            floats sums[4] = {{0}};
            for (int64_t i = 0; i < m->inner; i += LANES)
                for (int k = 0; k < 4; k++) sums[k] += *(const floats *)(h + i) * *(const floats *)(m->basis + (j + k) * m->inner + i);
            for (int k = 0; k < 4; k++) key[j + k] = total(sums[k]), squares += (double)key[j + k] * key[j + k];
        }
        float norm = (float)sqrt(squares);
        for (int64_t j = 0; j < m->width; j++) key[j] /= norm > 1e-12f ? norm : 1e-12f;
        int16_t numbers[MOST_WIDTH];
        rounded(key, m->width, 1, numbers, &scale);
        Found f;
        found_best(m, numbers, scale, tails + t * LONGEST, &f);
        if (!f.count) continue;
        int32_t said[NEAREST], token;
        double mass[NEAREST], top, all = summed(row, m->vocabulary, &token, &top);
        int64_t kinds;
        double share = judged(m, &f, top, token, said, mass, &kinds);
        if (!(share > 0.0)) continue;
        for (int64_t k = 0; k < kinds; k++) {
            if (said[k] < 0 || said[k] >= m->vocabulary) continue; /* rows were checked when they were loaded */
            double old = row[said[k]], more = log(mass[k] * (share / (1.0 - share))) + all;
            double high = old > more ? old : more;
            row[said[k]] = (float)(isnan(old) || isnan(more) ? NAN : high + log(exp(old - high) + exp(more - high)));
        }
    }
}

/* The likeliest token of every row of logits [rows, count], and log Σ e^logit. */
static void likeliest(const float *logits, int64_t count, int32_t *tokens, double *norms, int64_t rows) {
    double top;
    for (int64_t t = 0; t < rows; t++) norms[t] = summed(logits + t * count, count, tokens + t, &top);
}
