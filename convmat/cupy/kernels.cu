// What CuPy has no function for: writing W or its transpose, and products of few channels without storing either.
//
// Compiled at run time for the value in use (VALUE: float, double, Complex<float>, Complex<double>), for the integer that
// counts nonzeros (INDEX) and for the number of axes (AXES). All integers of a convolution come in one array of Big, `plan`:
// _tables.py lays out that of a matrix, of the segments of rows that _segments.py finds, and _engines/direct.py that of
// products. _records.py has the structs in it, says what their fields are, and declares them and Big before this file.
// A kernel takes pointers and nothing else.

template <typename T>
struct alignas(2 * sizeof(T)) Complex {
    T re, im;
    __device__ Complex& operator+=(const Complex& other) {
        re += other.re;
        im += other.im;
        return *this;
    }
};

template <typename T>
__device__ inline void add_product(T& sum, const T& a, const T& b) {
    sum += a * b;
}

template <typename T>
__device__ inline void add_product(Complex<T>& sum, const Complex<T>& a, const Complex<T>& b) {
    sum.re += a.re * b.re - a.im * b.im;
    sum.im += a.re * b.im + a.im * b.re;
}

typedef VALUE Value;
typedef INDEX Index;

#ifdef WRITE_ROWS

// One row of an axis before the last: the entries of the axis before it, what its run adds to the columns, and its record.
struct Found {
    Big before;
    Index columns;
    const Row* row;
};

__device__ inline Found find(const Big* plan, const MatrixAxis& axis, Big row) {
    const Run* runs = (const Run*)(plan + axis.runs_at);
    Big low = 0, high = axis.runs;
    while (high - low > 1) {  // the last run that does not start after the row
        Big middle = (low + high) / 2;
        if (runs[middle].start <= row)
            low = middle;
        else
            high = middle;
    }
    const Run& run = runs[low];
    Big period = (row - run.start) / run.period;
    const Row* own = (const Row*)(plan + run.rows_at) + (row - run.start - period * run.period);
    Found found = {run.before + period * run.entries + own->before, (Index)(period * run.shift), own};
    return found;
}

// Add column and weight of one entry of a row. Where two segments are interleaved from the fourth entry on, entry 8 is the
// fifth of theirs: (8 - 4) / 2 = 2 with rest 0, so it is entry 2 of the first of both.
__device__ inline void add_entry(const Big* plan, const Row& row, Index entry, Index& column, Big& weight) {
    const Progression* steps = &row.only;
    if (row.segments > 1) {
        const Segment* segment = (const Segment*)(plan + row.segments_at);
        for (Big left = row.segments; left > 1;) {  // the last segment that does not start after the entry
            Big half = left / 2;
            if (segment[half].before <= entry) segment += half;
            left -= half;
        }
        entry -= (Index)segment->before;
        Index interleaved = (Index)segment->interleaved, nth = entry / interleaved;
        // Those that are interleaved start together, so that the last of them was found.
        steps = &(segment - (interleaved - 1) + (entry - nth * interleaved))->progression;
        entry = nth;
    }
    column += (Index)(steps->column + entry * steps->column_step);
    weight += steps->weight + entry * steps->weight_step;
}

// A job, which a block of threads does, is a range of periods of a run of the last axis, for one line: a line is one row of
// every axis before the last. Its nonzeros are one stretch of memory, and a pattern that repeats but for a constant added to
// the columns: a thread decodes one nonzero of the pattern and writes it in every period, so consecutive threads write
// consecutive nonzeros, and values stay in registers.
//
// A nonzero of a row is a number whose digits are its entry on each axis, the last axis first, and then its channel: where
// the row has 3 entries on the last axis and 2 on the other, nonzero 11 is entry 2 of the last, 1 of the other, channel 1.
extern "C" __global__ void write_rows(const Value* __restrict__ weights, const Big* __restrict__ plan,
                                      Value* __restrict__ data, Index* __restrict__ indices, Index* __restrict__ ends) {
    const Matrix matrix = *(const Matrix*)plan;
    const MatrixAxis* axes = (const MatrixAxis*)(plan + sizeof(Matrix) / sizeof(Big));
    const MatrixAxis& last = axes[AXES - 1];
    for (Big job = blockIdx.x; job < matrix.jobs; job += gridDim.x) {
        Big line = job / matrix.ranges;
        const Periods periods = ((const Periods*)(plan + matrix.ranges_at))[job - line * matrix.ranges];
        line += matrix.first_line;
        const Run run = ((const Run*)(plan + last.runs_at))[periods.run];
        const Row* rows = (const Row*)(plan + run.rows_at);
        // Which row of every axis, and how many nonzeros come before it.
        Found leading[AXES > 1 ? AXES - 1 : 1];
        Big rest = line;
#pragma unroll
        for (int a = AXES - 2; a >= 0; a--) {
            Big next = rest / axes[a].rows;
            leading[a] = find(plan, axes[a], rest - next * axes[a].rows);
            rest = next;
        }
        Big channel = rest, begin = channel * matrix.column_channels * matrix.channel_entries - matrix.first_entry;
        Big width = matrix.column_channels;  // nonzeros for one entry of the last axis
        Index columns = (Index)(channel / matrix.row_channels * matrix.column_channels * matrix.channel_columns);
#pragma unroll
        for (int a = 0; a < AXES - 1; a++) {
            begin += width * leading[a].before * axes[a].inner_entries;
            width *= leading[a].row->count;
            columns += leading[a].columns;
        }
        begin += width * (run.before + periods.first * run.entries);
        columns += (Index)(periods.first * run.shift);
        Index size = (Index)(width * run.entries), repeats = size && size < blockDim.x ? blockDim.x / size : 1;
        for (Big at = threadIdx.x; at < repeats * size; at += blockDim.x) {
            Index first = (Index)at / size, entry = (Index)at - first * size, column = columns;
            const Row* row = rows;
            for (Big left = run.period; left > 1;) {  // the last row of the period that does not start after the entry
                Big half = left / 2;
                if (width * row[half].before <= entry) row += half;
                left -= half;
            }
            Big weight = channel * matrix.column_channels * matrix.channel_weights;
            Index digits = entry - (Index)(width * row->before);
            Index next = digits / (Index)row->count;
            add_entry(plan, *row, digits - next * (Index)row->count, column, weight);
            digits = next;
#pragma unroll
            for (int a = AXES - 2; a >= 0; a--) {
                Index count = (Index)leading[a].row->count;
                next = digits / count;
                add_entry(plan, *leading[a].row, digits - next * count, column, weight);
                digits = next;
            }
            column += digits * (Index)matrix.channel_columns;
            Value value = weights[weight + digits * matrix.channel_weights];
            Index shift = (Index)run.shift;
#pragma unroll 4
            for (Index period = first; period < periods.count; period += repeats) {
                Big to = begin + (Big)period * size + entry;
                data[to] = value;
                indices[to] = column + period * shift;
            }
        }
        Index* out = ends + (line * last.rows + run.start + periods.first * run.period - matrix.first_row);
        for (Big at = threadIdx.x; at < periods.count * run.period; at += blockDim.x) {
            Big period = at / run.period;
            const Row& row = rows[at - period * run.period];
            out[at] = (Index)(begin + period * size + width * (row.before + row.count));
        }
    }
}

#endif

#ifdef PRODUCTS

// Known when compiled, so that loops over taps can be written out and nothing is divided by a variable.
constexpr int taps[AXES] = TAPS, stride[AXES] = STRIDE, dilation[AXES] = DILATION;

// The taps of one result that read something: the first, how many, and where they read.
struct Taps {
    Index tap, count, position;
};

#ifdef TRANSPOSED

__host__ __device__ constexpr int common(int a) {
    int one = stride[a], other = dilation[a];
    while (other) {
        int rest = one % other;
        one = other;
        other = rest;
    }
    return one;
}

// Times dilation / common it is 1 modulo stride / common.
__host__ __device__ constexpr int inverse(int a) {
    int step = stride[a] / common(a), number = 0;
    while ((long long)number * (dilation[a] / common(a)) % step != 1 % step) number++;
    return number;
}

// The taps that meet a position lie on one residue class modulo stride / common: so far are they apart, and what they read.
template <int A>
struct Steps {
    static constexpr Index shared = common(A), tap = stride[A] / shared, position = -dilation[A] / shared;
    static constexpr Index inverted = inverse(A);
};

template <int A>
__device__ inline Taps meet(const ProductAxis& axis, Index result) {
    constexpr Index step = Steps<A>::tap, shared = Steps<A>::shared;
    Index position = result + (Index)axis.before, lowest = position - ((Index)axis.size - 1) * stride[A];
    Index first = lowest > 0 ? (lowest + dilation[A] - 1) / dilation[A] : 0;
    Index last = position / dilation[A] < taps[A] - 1 ? position / dilation[A] : taps[A] - 1;
    Index residue = (Index)((Big)(position / shared % step) * Steps<A>::inverted % step);
    first += (residue + step - first % step) % step;
    Index count = position % shared == 0 && last >= first ? (last - first) / step + 1 : 0;
    Taps found = {first, count, (position - first * dilation[A]) / stride[A]};
    return found;
}

#else

template <int A>
struct Steps {
    static constexpr Index tap = 1, position = dilation[A];
};

template <int A>
__device__ inline Taps meet(const ProductAxis& axis, Index result) {
    Index origin = result * stride[A] - (Index)axis.before;
    Index first = origin < 0 ? (-origin + dilation[A] - 1) / dilation[A] : 0;
    Index last = origin < axis.size ? ((Index)axis.size - 1 - origin) / dilation[A] : -1;
    last = last < taps[A] - 1 ? last : taps[A] - 1;
    Taps found = {first, last >= first ? last - first + 1 : 0, origin + first * dilation[A]};
    return found;
}

#endif

// What a result reads through the axes from A on: recursion, since every axis has steps of its own.
template <int A>
struct Reader {
    static __device__ void add(Value& sum, const Value* x, const Value* weights, const ProductAxis* axes,
                               const Taps* found) {
        Big inner_size = 1, inner_taps = 1;
#pragma unroll
        for (int a = A + 1; a < AXES; a++) {
            inner_size *= axes[a].size;
            inner_taps *= taps[a];
        }
        const Value* data = x + found[A].position * inner_size;
        const Value* weight = weights + found[A].tap * inner_taps;
        Big down = Steps<A>::position * inner_size, along = Steps<A>::tap * inner_taps;
        for (Index i = 0; i < found[A].count; i++) Reader<A + 1>::add(sum, data + i * down, weight + i * along, axes, found);
    }
};

template <>
struct Reader<AXES - 1> {
    static __device__ void add(Value& sum, const Value* x, const Value* weights, const ProductAxis*, const Taps* found) {
        const Taps& own = found[AXES - 1];
#pragma unroll 4
        for (Index i = 0; i < own.count; i++)
            add_product(sum, weights[own.tap + i * Steps<AXES - 1>::tap], x[own.position + i * Steps<AXES - 1>::position]);
    }
};

template <int A>
__device__ inline Big meet_leading(const ProductAxis* axes, Big rest, Taps* found, bool& reads) {
    if constexpr (A >= 0) {
        Big next = rest / axes[A].results;
        found[A] = meet<A>(axes[A], (Index)(rest - next * axes[A].results));
        reads = reads && found[A].count;
        return meet_leading<A - 1>(axes, next, found, reads);
    } else {
        return rest;
    }
}

// A block does a rectangle of the last two axes; what comes before them, a plane of results, is z.
#define FOR_EACH_PLANE                                                                                                  \
    const Product& product = *(const Product*)plan;                                                                     \
    const ProductAxis* axes = (const ProductAxis*)(plan + sizeof(Product) / sizeof(Big));                               \
    const ProductAxis &upper = axes[AXES - 2], &last = axes[AXES - 1];                                                  \
    Index column = (Index)(blockIdx.x * (Big)blockDim.x + threadIdx.x);                                                 \
    if (column >= last.results) return;                                                                                 \
    Big planes = product.batch * product.groups * product.results;                                                      \
    for (int a = 0; a < AXES - 2; a++) planes *= axes[a].results;                                                       \
    for (Big z = blockIdx.z; z < planes; z += gridDim.z)

#ifdef TILE

constexpr int ROWS = (TILE - 1) * stride[AXES - 2] + (taps[AXES - 2] - 1) * dilation[AXES - 2] + 1;  // that a tile reads

__host__ __device__ constexpr int leading_taps() {
    int count = 1;
    for (int a = 0; a < AXES - 2; a++) count *= taps[a];
    return count;
}

template <bool INSIDE>
__device__ inline void add_plane(Value* sums, const Value* plane, const Value* weights, Index top, Index left, Big rows,
                                 Big columns) {
    constexpr int height = taps[AXES - 2], width = taps[AXES - 1], down = stride[AXES - 2], apart = dilation[AXES - 2];
#pragma unroll UNROLL
    for (int t = 0; t < width; t++) {
        Index across = left + t * dilation[AXES - 1];
        bool open = INSIDE || (across >= 0 && across < columns);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            Value value = INSIDE || (open && top + r >= 0 && top + r < rows) ? plane[(top + r) * columns + across] : Value();
#pragma unroll
            for (int j = 0; j < TILE; j++) {
                int offset = r - j * down;  // of the row from the first that result j reads
                if (offset >= 0 && offset % apart == 0 && offset / apart < height)
                    add_product(sums[j], weights[offset / apart * width + t], value);
            }
        }
    }
}

// Forward, with taps known when compiled: a thread does TILE results below one another, and reads what they share once.
extern "C" __global__ void correlate(const Value* __restrict__ x, const Value* __restrict__ kernel, Value* __restrict__ out,
                                   const Big* __restrict__ plan) {
    FOR_EACH_PLANE {
        Index origins[AXES > 2 ? AXES - 2 : 1];
        Big rest = z;
#pragma unroll
        for (int a = AXES - 3; a >= 0; a--) {
            Big next = rest / axes[a].results;
            origins[a] = (Index)((rest - next * axes[a].results) * stride[a] - axes[a].before);
            rest = next;
        }
        Big group = rest / product.results, result = rest - group * product.results;  // of all groups of the batch
        const Value* weights = kernel + group % product.groups * product.kernel_group + result * product.kernel_result;
        Index left = column * stride[AXES - 1] - (Index)last.before;
        bool between = left >= 0 && left + (taps[AXES - 1] - 1) * dilation[AXES - 1] < last.size;
        Big step = gridDim.y * (Big)blockDim.y * TILE;
        for (Big row = (blockIdx.y * (Big)blockDim.y + threadIdx.y) * TILE; row < upper.results; row += step) {
            Index top = (Index)(row * stride[AXES - 2] - upper.before);
            bool inside = between && top >= 0 && top + ROWS <= upper.size;
            Value sums[TILE] = {};
            for (Big channel = 0; channel < product.data; channel++)
                for (int outer = 0; outer < leading_taps(); outer++) {
                    Big position = group * product.data + channel;
                    Index at[AXES > 2 ? AXES - 2 : 1];
                    bool reads = true;
                    int digits = outer;
#pragma unroll
                    for (int a = AXES - 3; a >= 0; a--) {
                        at[a] = origins[a] + digits % taps[a] * dilation[a];
                        reads = reads && at[a] >= 0 && at[a] < axes[a].size;
                        digits /= taps[a];
                    }
                    if (!reads) continue;
#pragma unroll
                    for (int a = 0; a < AXES - 2; a++) position = position * axes[a].size + at[a];
                    const Value* plane = x + position * upper.size * last.size;
                    const Value* own = weights + channel * product.kernel_data + outer * (taps[AXES - 2] * taps[AXES - 1]);
                    if (inside)
                        add_plane<true>(sums, plane, own, top, left, upper.size, last.size);
                    else
                        add_plane<false>(sums, plane, own, top, left, upper.size, last.size);
                }
#pragma unroll
            for (int j = 0; j < TILE; j++)
                if (row + j < upper.results) out[(z * upper.results + row + j) * last.results + column] = sums[j];
        }
    }
}

#else

// Any geometry, either direction: a thread sums what one result reads, and goes on to the row below.
extern "C" __global__ void gather(const Value* __restrict__ x, const Value* __restrict__ kernel, Value* __restrict__ out,
                                  const Big* __restrict__ plan) {
    FOR_EACH_PLANE {
        Taps found[AXES];
        bool reads = true;
        Big rest = meet_leading<AXES - 3>(axes, z, found, reads);
        Big group = rest / product.results, result = rest - group * product.results;  // of all groups of the batch
        const Value* weights = kernel + group % product.groups * product.kernel_group + result * product.kernel_result;
        found[AXES - 1] = meet<AXES - 1>(last, column);
        Big size = 1;
#pragma unroll
        for (int a = 0; a < AXES; a++) size *= axes[a].size;
        for (Big row = blockIdx.y * (Big)blockDim.y + threadIdx.y; row < upper.results; row += gridDim.y * (Big)blockDim.y) {
            found[AXES - 2] = meet<AXES - 2>(upper, (Index)row);
            Value sum = Value();
            for (Big channel = 0; reads && channel < product.data; channel++)
                Reader<0>::add(sum, x + (group * product.data + channel) * size,
                               weights + channel * product.kernel_data, axes, found);
            out[(z * upper.results + row) * last.results + column] = sum;
        }
    }
}

#endif
#endif
