/* kNN memory: mixes into logits what followed the longest matches and the nearest neighbours. knn_lm.py, token_index.py and
 * mixture.py hold the same arithmetic in NumPy and define its terms. */

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
INLINE void find_neighbours(const Memory *m, const int16_t *key, float scale, const int32_t *tail, Neighbours *f) {
    int32_t token = tail[MAX_MATCH - 1];
    int64_t low = lower_bound(m->last, m->count, token), high = lower_bound(m->last, m->count, (int64_t)token + 1);
    int64_t stride = (high - low + MAX_CANDIDATES - 1) / MAX_CANDIDATES, least = 0;
    float scores[NEIGHBOURS], per_product = scale / 127.0f / (float)m->gate[TEMPERATURE];
    float best_run = (float)(m->gate[KEY_LENGTH_WEIGHT] > 0.0 ? m->gate[KEY_LENGTH_WEIGHT] * MAX_MATCH : m->gate[KEY_LENGTH_WEIGHT]) + 1e-4f; /* 1e-4 covers rounding */
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
            float score = cosine / (float)m->gate[TEMPERATURE] + (float)m->gate[KEY_LENGTH_WEIGHT] * (float)run;
            int64_t to = least;
            if (f->count < NEIGHBOURS) to = f->count++;
            else if (!(score > scores[least])) continue;
            scores[to] = score, f->cosine[to] = cosine, f->run[to] = (float)run, f->next[to] = m->ids[place + 1];
            if (f->count == NEIGHBOURS)
                for (int64_t i = least = 0; i < NEIGHBOURS; i++) least = scores[i] < scores[least] ? i : least;
        }
    }
}

/* log Σ e^logit of one row, its most likely token and that token's probability. */
typedef struct {
    const float *logits;
    int64_t vocabulary;
    double norm, top;
    int32_t token;
} Row;

/* The model's probability of a token. */
INLINE double row_probability(const Row *row, int32_t token) {
    return token < 0 || token >= row->vocabulary ? 0.0 : exp((double)row->logits[token] - row->norm);
}

/* The distribution of next tokens whose candidates have these scores: softmax, summed by token. */
INLINE void count_votes(const double *scores, const int32_t *next, int64_t count, Vote *vote) {
    double most = -INFINITY, sum = 0.0;
    vote->distinct = vote->best = 0;
    for (int64_t i = 0; i < count; i++) most = scores[i] > most ? scores[i] : most;
    for (int64_t i = 0; i < count; i++) {
        double weight = exp(scores[i] - most);
        int64_t k = 0;
        while (k < vote->distinct && vote->tokens[k] != next[i]) k++;
        if (k == vote->distinct) vote->tokens[k] = next[i], vote->mass[vote->distinct++] = 0.0;
        vote->mass[k] += weight;
        sum += weight;
    }
    for (int64_t k = 0; k < vote->distinct; k++) {
        vote->mass[k] /= sum;
        int64_t best = vote->best; /* of equal ones the lowest token */
        if (vote->mass[k] > vote->mass[best] || (vote->mass[k] == vote->mass[best] && vote->tokens[k] < vote->tokens[best]))
            vote->best = k;
    }
}

/* The vote of the token index after a tail. */
INLINE void vote_of_tokens(const Memory *m, const Row *row, const int32_t *tail, TokenCandidates *f, Vote *vote) {
    const double *gate = m->gate;
    double scores[TOKEN_CANDIDATES];
    f->count = f->longest = f->positions = 0;
    if (m->positions) find_token_candidates(m->tokens, m->order, m->positions, tail, f);
    for (int64_t i = 0; i < f->count; i++) {
        double length = f->lengths[i], probability = row_probability(row, f->next[i]);
        scores[i] = gate[LENGTH_WEIGHT] * (length < 8.0 ? length : 8.0) +
                    gate[LONG_WEIGHT] * log2((length > 8.0 ? length : 8.0) / 8.0) +
                    (length == (double)f->longest ? gate[LONGEST_BONUS] : 0.0) +
                    gate[AGREEMENT] * log(probability > 1e-9 ? probability : 1e-9);
    }
    count_votes(scores, f->next, f->count, vote);
}

/* The vote of the nearest neighbours by neural key. */
INLINE void vote_of_neighbours(const Memory *m, const Neighbours *f, Vote *vote) {
    double scores[NEIGHBOURS];
    for (int64_t i = 0; i < f->count; i++)
        scores[i] = (double)f->cosine[i] / m->gate[TEMPERATURE] + m->gate[KEY_LENGTH_WEIGHT] * (double)f->run[i];
    count_votes(scores, f->next, f->count, vote);
}

/* Different next tokens of candidates with a match of at least `length`. */
INLINE int64_t different_after(const TokenCandidates *f, float length) {
    int64_t different = 0;
    for (int64_t i = 0; i < f->count && f->lengths[i] >= length; i++) {
        int64_t j = 0;
        while (f->next[j] != f->next[i]) j++;
        different += j == i;
    }
    return different;
}

/* Features of a vote against the model: its highest probability, and the model's for the same token. */
INLINE void compare_with_model(const Row *row, const Vote *vote, double *out) {
    double probability = row_probability(row, vote->tokens[vote->best]);
    out[0] = vote->mass[vote->best];
    out[1] = log(probability > 1e-6 ? probability : 1e-6) / 10.0;
}

/* Inputs of the mixture gate, in the order of mixture.FEATURES; those of an absent vote are 0. */
INLINE void mixture_features(const Row *row, const TokenCandidates *t, const Vote *tokens, const Neighbours *n, const Vote *keys,
                             double *out) {
    for (int i = 0; i < FEATURES; i++) out[i] = 0.0;
    out[0] = row->top;
    if (t->count) {
        double longest = (double)t->longest;
        out[1] = (longest < 8.0 ? longest : 8.0) / 8.0;
        out[2] = log2((longest > 8.0 ? longest : 8.0) / 8.0) / 3.0;
        out[3] = log1p((double)t->positions) / 8.0;
        out[4] = log1p((double)different_after(t, (float)longest)) / 4.0;
        out[5] = log1p((double)tokens->distinct) / 4.0;
        compare_with_model(row, tokens, out + 6);
    }
    if (n->count) {
        float cosine = -INFINITY, run = 0.0f;
        for (int64_t i = 0; i < n->count; i++) {
            cosine = n->cosine[i] > cosine ? n->cosine[i] : cosine;
            run = n->run[i] > run ? n->run[i] : run;
        }
        out[8] = (double)cosine;
        out[9] = (double)run / MAX_MATCH;
        out[10] = log1p((double)n->candidates) / 8.0;
        compare_with_model(row, keys, out + 11);
    }
}

/* The weights of the two votes: softmax over (0, z of the tokens, z of the keys), times the strength. */
INLINE void vote_weights(const double *gate, const double *features, int has_tokens, int has_keys, double *weights) {
    const double ceiling = 0.95, *hidden = gate + GATE_SCORES, *bias = hidden + HIDDEN * FEATURES, *out = bias + HIDDEN;
    double z[2] = {out[2 * HIDDEN], out[2 * HIDDEN + 1]}, odds[2], strength = gate[GATE_STRENGTH];
    int present[2] = {has_tokens, has_keys};
    for (int h = 0; h < HIDDEN; h++) {
        double sum = bias[h];
        for (int i = 0; i < FEATURES; i++) sum += features[i] * hidden[h * FEATURES + i];
        sum = tanh(sum);
        z[0] += sum * out[h], z[1] += sum * out[HIDDEN + h];
    }
    for (int e = 0; e < 2; e++) odds[e] = present[e] ? exp(z[e] < -30.0 ? -30.0 : z[e] > 30.0 ? 30.0 : z[e]) : 0.0;
    double sum = 1.0 + odds[0] + odds[1], total = strength * (odds[0] + odds[1]) / sum;
    double factor = total > ceiling ? ceiling / total : 1.0;
    for (int e = 0; e < 2; e++) weights[e] = factor * strength * odds[e] / sum;
}

/* The unit key of a hidden state, quantised, and its scale. */
INLINE float query_key(const Memory *m, const float *hidden, int16_t *quantized) {
    float key[MAX_KEY_WIDTH], scale;
    double squares = 0.0;
    for (int64_t j = 0; j < m->width; j += 4) {
        floats sums[4] = {{0}};
        for (int64_t i = 0; i < m->inner; i += LANES)
            for (int k = 0; k < 4; k++)
                sums[k] += *(const floats *)(hidden + i) * *(const floats *)(m->basis + (j + k) * m->inner + i);
        for (int k = 0; k < 4; k++) key[j + k] = horizontal_sum(sums[k]), squares += (double)key[j + k] * key[j + k];
    }
    float norm = (float)sqrt(squares);
    for (int64_t j = 0; j < m->width; j++) key[j] /= norm > 1e-12f ? norm : 1e-12f;
    quantize_rows(key, m->width, 1, quantized, &scale);
    return scale;
}

/* The mixed vote at one position: tokens and their share of the mixture; returns the sum of the shares, λ. */
INLINE double mixed_vote(const Memory *m, const float *hidden, const int32_t *tail, const Row *row, MixedVote *mixed) {
    int16_t quantized[MAX_KEY_WIDTH];
    Neighbours neighbours = {.count = 0, .candidates = 0};
    TokenCandidates candidates;
    Vote tokens, keys;
    double features[FEATURES], weights[2];
    mixed->distinct = 0;
    if (m->count) {
        float scale = query_key(m, hidden, quantized);
        find_neighbours(m, quantized, scale, tail + MAX_CONTEXT - MAX_MATCH, &neighbours);
    }
    vote_of_tokens(m, row, tail, &candidates, &tokens);
    vote_of_neighbours(m, &neighbours, &keys);
    if (!candidates.count && !neighbours.count) return 0.0;
    mixture_features(row, &candidates, &tokens, &neighbours, &keys, features);
    vote_weights(m->gate, features, candidates.count > 0, neighbours.count > 0, weights);
    const Vote *votes[2] = {&tokens, &keys};
    for (int e = 0; e < 2; e++)
        for (int64_t k = 0; k < votes[e]->distinct; k++) {
            int64_t at = 0;
            while (at < mixed->distinct && mixed->tokens[at] != votes[e]->tokens[k]) at++;
            if (at == mixed->distinct) mixed->tokens[at] = votes[e]->tokens[k], mixed->share[mixed->distinct++] = 0.0;
            mixed->share[at] += weights[e] * votes[e]->mass[k];
        }
    return weights[0] + weights[1];
}

/* Mixes the memory into logits [rows, vocabulary], in place. hidden [rows, inner], tails [rows, MAX_CONTEXT]. With `targets`
 * [rows], logits stay as they are and out [rows, 2] becomes λ and the memory's probability of each target. */
static void mix_memory(const Memory *m, const float *hidden, const int32_t *tails, float *logits, int64_t rows,
                       const int32_t *targets, double *out) {
    for (int64_t t = 0; t < rows; t++) {
        Row row = {logits + t * m->vocabulary, m->vocabulary, 0.0, 0.0, 0};
        MixedVote mixed;
        row.norm = log_sum_exp(row.logits, m->vocabulary, &row.token, &row.top);
        double lambda = mixed_vote(m, hidden + t * m->inner, tails + t * MAX_CONTEXT, &row, &mixed);
        if (targets) out[2 * t] = lambda, out[2 * t + 1] = 0.0;
        for (int64_t k = 0; k < mixed.distinct && lambda > 0.0; k++) {
            int32_t token = mixed.tokens[k];
            if (targets) {
                if (token == targets[t]) out[2 * t + 1] = mixed.share[k] / lambda;
                continue;
            }
            if (token < 0 || token >= m->vocabulary || !(mixed.share[k] > 0.0)) continue; /* a damaged memory file */
            float *logit = logits + t * m->vocabulary + token;
            double old = *logit, added = log(mixed.share[k] / (1.0 - lambda)) + row.norm;
            double high = old > added ? old : added;
            *logit = (float)(isnan(old) || isnan(added) ? NAN : high + log(exp(old - high) + exp(added - high)));
        }
    }
}

/* tokens[t] = argmax and norms[t] = log Σ e^logit of row t of logits [rows, count]. */
static void argmax_rows(const float *logits, int64_t count, int32_t *tokens, double *norms, int64_t rows) {
    double top;
    for (int64_t t = 0; t < rows; t++) norms[t] = log_sum_exp(logits + t * count, count, tokens + t, &top);
}
