// What CuPy has no function for: writing W or its transpose, and products of few channels without storing either.
//
// Compiled at run time for the value in use (VALUE: float, double, Complex<float>, Complex<double>), for the integer that
// counts nonzeros (INDEX) and for the number of axes (AXES). All integers of a convolution come in one array, `plan`:
// tables.py lays out that of a matrix, of the parts of rows that parts.py finds, and engines/direct.py that of products.
// A kernel takes pointers and nothing else.

typedef long long Big;

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

// Rows of one axis, as tables.py describes them: runs of rows that repeat by a period, and the rows of each period.
struct Run {
    Big start, period, shift, before, entries, first;
};

struct Progression {
    Big column, column_step, slot, slot_step;
};

struct Row {
    Big before, count;
    Progression steps;  // of the only part
    Big parts, first;
};

struct Part {  // of a row with several
    Big before, every;
    Progression steps;
};

struct Axis {
    Big rows, tail, runs, run_count;
};

struct Piece {  // of a run of the last axis
    Big run, first, count;
};

struct Matrix {
    Big jobs, first_line, pieces, outer, inner, channel_columns, channel_slots, entries, first_row, first_entry, piece;
};

// One row of an axis: where its entries begin among those of the axis, and what they are.
struct Place {
    Big before;
    Index columns;
    const Row* row;
};

__device__ inline Place find(const Big* plan, const Axis& axis, Big row) {
    const Run* runs = (const Run*)(plan + axis.runs);
    Big low = 0, high = axis.run_count;
    while (high - low > 1) {  // the last run that does not start after the row
        Big middle = (low + high) / 2;
        if (runs[middle].start <= row)
            low = middle;
        else
            high = middle;
    }
    const Run& run = runs[low];
    Big period = (row - run.start) / run.period;
    const Row* own = (const Row*)(plan + run.first) + (row - run.start - period * run.period);
    Place place = {run.before + period * run.entries + own->before, (Index)(period * run.shift), own};
    return place;
}

__device__ inline void add_entry(const Big* plan, const Row& row, Index entry, Index& column, Big& slot) {
    const Progression* steps = &row.steps;
    if (row.parts > 1) {
        const Part* part = (const Part*)(plan + row.first);
        for (Big parts = row.parts; parts > 1;) {  // the last part that does not start after the entry
            Big half = parts / 2;
            if (part[half].before <= entry) part += half;
            parts -= half;
        }
        entry -= (Index)part->before;
        Index every = (Index)part->every, next = entry / every;
        steps = &(part - (every - 1) + (entry - next * every))->steps;  // parts that take turns start together
        entry = next;
    }
    column += (Index)(steps->column + entry * steps->column_step);
    slot += steps->slot + entry * steps->slot_step;
}

// A job, which a block of threads does, is a piece of a run of the last axis, in one row of all axes before it. Its
// nonzeros are one stretch of memory, and a pattern that repeats but for a constant added to the columns: a thread
// decodes one place of the pattern and writes it in every period, so consecutive threads write consecutive nonzeros, and
// values stay in registers.
extern "C" __global__ void write_rows(const Value* __restrict__ kernel, const Big* __restrict__ plan,
                                      Value* __restrict__ data, Index* __restrict__ indices, Index* __restrict__ ends) {
    const Matrix matrix = *(const Matrix*)plan;
    const Axis* axes = (const Axis*)(plan + sizeof(Matrix) / sizeof(Big));
    const Axis& last = axes[AXES - 1];
    for (Big job = blockIdx.x; job < matrix.jobs; job += gridDim.x) {
        Big line = job / matrix.pieces;
        const Piece piece = ((const Piece*)(plan + matrix.piece))[job - line * matrix.pieces];
        line += matrix.first_line;
        const Run run = ((const Run*)(plan + last.runs))[piece.run];
        const Row* rows = (const Row*)(plan + run.first);
        // Which row of every axis, and how many nonzeros come before it.
        Place places[AXES > 1 ? AXES - 1 : 1];
        Big rest = line;
#pragma unroll
        for (int a = AXES - 2; a >= 0; a--) {
            Big next = rest / axes[a].rows;
            places[a] = find(plan, axes[a], rest - next * axes[a].rows);
            rest = next;
        }
        Big channel = rest, begin = channel * matrix.inner * matrix.entries - matrix.first_entry, width = matrix.inner;
        Index columns = (Index)(channel / matrix.outer * matrix.inner * matrix.channel_columns);
#pragma unroll
        for (int a = 0; a < AXES - 1; a++) {
            begin += width * places[a].before * axes[a].tail;
            width *= places[a].row->count;
            columns += places[a].columns;
        }
        begin += width * (run.before + piece.first * run.entries);
        columns += (Index)(piece.first * run.shift);
        Index size = (Index)(width * run.entries), repeats = size && size < blockDim.x ? blockDim.x / size : 1;
        for (Big at = threadIdx.x; at < repeats * size; at += blockDim.x) {
            Index first = (Index)at / size, entry = (Index)at - first * size, column = columns;
            const Row* row = rows;
            for (Big lines = run.period; lines > 1;) {  // the last row of the period that does not start after the entry
                Big half = lines / 2;
                if (width * row[half].before <= entry) row += half;
                lines -= half;
            }
            Big slot = channel * matrix.inner * matrix.channel_slots;
            Index digits = entry - (Index)(width * row->before);
            Index next = digits / (Index)row->count;
            add_entry(plan, *row, digits - next * (Index)row->count, column, slot);
            digits = next;
#pragma unroll
            for (int a = AXES - 2; a >= 0; a--) {
                Index count = (Index)places[a].row->count;
                next = digits / count;
                add_entry(plan, *places[a].row, digits - next * count, column, slot);
                digits = next;
            }
            column += digits * (Index)matrix.channel_columns;
            Value value = kernel[slot + digits * matrix.channel_slots];
            Index shift = (Index)run.shift;
#pragma unroll 4
            for (Index period = first; period < piece.count; period += repeats) {
                Big to = begin + (Big)period * size + entry;
                data[to] = value;
                indices[to] = column + period * shift;
            }
        }
        Index* out = ends + (line * last.rows + run.start + piece.first * run.period - matrix.first_row);
        for (Big at = threadIdx.x; at < piece.count * run.period; at += blockDim.x) {
            Big period = at / run.period;
            const Row& row = rows[at - period * run.period];
            out[at] = (Index)(begin + period * size + width * (row.before + row.count));
        }
    }
}

#endif

#ifdef PRODUCTS

// One axis of a product: positions of the data that is read, results of what is written, and padding before the input.
struct Side {
    Big size, results, before;
};

struct Layer {
    Big batch, groups, results, data;  // channels of a group
    Big kernel_group, kernel_result, kernel_data;  // what they are apart in the kernel
};

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
__device__ inline Taps meet(const Side& side, Index result) {
    constexpr Index step = Steps<A>::tap, shared = Steps<A>::shared;
    Index position = result + (Index)side.before, lowest = position - ((Index)side.size - 1) * stride[A];
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
__device__ inline Taps meet(const Side& side, Index result) {
    Index origin = result * stride[A] - (Index)side.before;
    Index first = origin < 0 ? (-origin + dilation[A] - 1) / dilation[A] : 0;
    Index last = origin < side.size ? ((Index)side.size - 1 - origin) / dilation[A] : -1;
    last = last < taps[A] - 1 ? last : taps[A] - 1;
    Taps found = {first, last >= first ? last - first + 1 : 0, origin + first * dilation[A]};
    return found;
}

#endif

// What a result reads through the axes from A on: recursion, since every axis has steps of its own.
template <int A>
struct Reader {
    static __device__ void add(Value& sum, const Value* x, const Value* weights, const Side* sides, const Taps* found) {
        Big inner_size = 1, inner_taps = 1;
#pragma unroll
        for (int a = A + 1; a < AXES; a++) {
            inner_size *= sides[a].size;
            inner_taps *= taps[a];
        }
        const Value* data = x + found[A].position * inner_size;
        const Value* weight = weights + found[A].tap * inner_taps;
        Big down = Steps<A>::position * inner_size, along = Steps<A>::tap * inner_taps;
        for (Index i = 0; i < found[A].count; i++) Reader<A + 1>::add(sum, data + i * down, weight + i * along, sides, found);
    }
};

template <>
struct Reader<AXES - 1> {
    static __device__ void add(Value& sum, const Value* x, const Value* weights, const Side*, const Taps* found) {
        const Taps& own = found[AXES - 1];
#pragma unroll 4
        for (Index i = 0; i < own.count; i++)
            add_product(sum, weights[own.tap + i * Steps<AXES - 1>::tap], x[own.position + i * Steps<AXES - 1>::position]);
    }
};

template <int A>
__device__ inline Big meet_leading(const Side* sides, Big rest, Taps* found, bool& reads) {
    if constexpr (A >= 0) {
        Big next = rest / sides[A].results;
        found[A] = meet<A>(sides[A], (Index)(rest - next * sides[A].results));
        reads = reads && found[A].count;
        return meet_leading<A - 1>(sides, next, found, reads);
    } else {
        return rest;
    }
}

// A block does a rectangle of the last two axes; what comes before them is z.
#define FOR_EACH_PLANE                                                                                                  \
    const Layer& layer = *(const Layer*)plan;                                                                           \
    const Side* sides = (const Side*)(plan + sizeof(Layer) / sizeof(Big));                                              \
    const Side &upper = sides[AXES - 2], &last = sides[AXES - 1];                                                       \
    Index column = (Index)(blockIdx.x * (Big)blockDim.x + threadIdx.x);                                                 \
    if (column >= last.results) return;                                                                                 \
    Big planes = layer.batch * layer.groups * layer.results;                                                            \
    for (int a = 0; a < AXES - 2; a++) planes *= sides[a].results;                                                      \
    for (Big z = blockIdx.z; z < planes; z += gridDim.z)

#ifdef TILE

constexpr int ROWS = (TILE - 1) * stride[AXES - 2] + (taps[AXES - 2] - 1) * dilation[AXES - 2] + 1;  // that a tile reads

__host__ __device__ constexpr int leading_taps() {
    int product = 1;
    for (int a = 0; a < AXES - 2; a++) product *= taps[a];
    return product;
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
                int reach = r - j * down;
                if (reach >= 0 && reach % apart == 0 && reach / apart < height)
                    add_product(sums[j], weights[reach / apart * width + t], value);
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
            Big next = rest / sides[a].results;
            origins[a] = (Index)((rest - next * sides[a].results) * stride[a] - sides[a].before);
            rest = next;
        }
        Big group = rest / layer.results, result = rest - group * layer.results;  // of all groups of the batch
        const Value* weights = kernel + group % layer.groups * layer.kernel_group + result * layer.kernel_result;
        Index left = column * stride[AXES - 1] - (Index)last.before;
        bool between = left >= 0 && left + (taps[AXES - 1] - 1) * dilation[AXES - 1] < last.size;
        Big step = gridDim.y * (Big)blockDim.y * TILE;
        for (Big row = (blockIdx.y * (Big)blockDim.y + threadIdx.y) * TILE; row < upper.results; row += step) {
            Index top = (Index)(row * stride[AXES - 2] - upper.before);
            bool inside = between && top >= 0 && top + ROWS <= upper.size;
            Value sums[TILE] = {};
            for (Big channel = 0; channel < layer.data; channel++)
                for (int lead = 0; lead < leading_taps(); lead++) {
                    Big position = group * layer.data + channel;
                    Index at[AXES > 2 ? AXES - 2 : 1];
                    bool reads = true;
                    int digits = lead;
#pragma unroll
                    for (int a = AXES - 3; a >= 0; a--) {
                        at[a] = origins[a] + digits % taps[a] * dilation[a];
                        reads = reads && at[a] >= 0 && at[a] < sides[a].size;
                        digits /= taps[a];
                    }
                    if (!reads) continue;
#pragma unroll
                    for (int a = 0; a < AXES - 2; a++) position = position * sides[a].size + at[a];
                    const Value* plane = x + position * upper.size * last.size;
                    const Value* own = weights + channel * layer.kernel_data + lead * (taps[AXES - 2] * taps[AXES - 1]);
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
        Big rest = meet_leading<AXES - 3>(sides, z, found, reads);
        Big group = rest / layer.results, result = rest - group * layer.results;  // of all groups of the batch
        const Value* weights = kernel + group % layer.groups * layer.kernel_group + result * layer.kernel_result;
        found[AXES - 1] = meet<AXES - 1>(last, column);
        Big size = 1;
#pragma unroll
        for (int a = 0; a < AXES; a++) size *= sides[a].size;
        for (Big row = blockIdx.y * (Big)blockDim.y + threadIdx.y; row < upper.results; row += gridDim.y * (Big)blockDim.y) {
            found[AXES - 2] = meet<AXES - 2>(upper, (Index)row);
            Value sum = Value();
            for (Big channel = 0; reads && channel < layer.data; channel++)
                Reader<0>::add(sum, x + (group * layer.data + channel) * size, weights + channel * layer.kernel_data, sides,
                               found);
            out[(z * upper.results + row) * last.results + column] = sum;
        }
    }
}

#endif
#endif
