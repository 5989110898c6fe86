// Adapters of a bf16 linear, backward, the side of the outputs: one pass over dy gives
//
//   du_i = scale dy_i B_i         dB_i += scale dy_i^T u_i
//
// A block has a slab of columns and a chunk of rows of one adapter's part of dy.
#include "kernels/cuda/lora_backward.cuh"
#include "kernels/cuda/lora_outputs.cuh"

namespace qvl
{

enum {
    MOST_PIECES = 2,                            // of dy beside each other in a warp: 2 or 1
    WARPS_COLUMNS = LORA_WARPS * PIECE_COLUMNS, // of a slab, for each of the pieces
    OUTPUT_ROWS = 384,                          // of a block, at most: bounds its shared memory
    BLOCKS_PER_SM = 3
};

static __device__ __forceinline__ int part_of_slab(const output_params &p, int slab)
{
    int i = 0;
    while (i + 1 < p.n_parts && slab >= p.part[i + 1].first_slab)
        i++;
    return i;
}

// The last block of a chunk of rows adds up du of all slabs of the adapter, four ranks a thread;
// with few rows several threads share the slabs. room: of as many floats as the rows have, per
// warp.
static __device__ __forceinline__ void add_slabs(const output_params &p, int index, int tile,
                                                 int64_t row0, int64_t last, float4 *room)
{
    const output_part &part = p.part[index];
    const int end = index + 1 < p.n_parts ? p.part[index + 1].first_slab : p.n_slabs;
    const int n_slabs = end - part.first_slab, n = (int)(last - row0) * TILE_RANK / 4;
    const int sharers = max(1, min(LORA_WARPS, LORA_THREADS / n));
    const int64_t slab = (int64_t)p.n_tiles * p.T * TILE_RANK / 4; // from slab to slab
    const int64_t first = (int64_t)part.first_slab * p.n_tiles + tile;
    const float4 *from = (const float4 *)(p.du_parts + (first * p.T + row0) * TILE_RANK);
    unsigned *counter = p.counters + (blockIdx.y * p.n_tiles + tile) * p.n_parts + index;
    if (!is_last_block(counter, (unsigned)n_slabs))
        return;
    for (int i = threadIdx.x; i < n * sharers; i += LORA_THREADS) {
        const int share = i / n, of_share = (n_slabs - share + sharers - 1) / sharers;
        room[i] = sum_strided(from + share * slab + i % n, sharers * slab, of_share);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += LORA_THREADS) {
        float4 sum = room[i];
        for (int share = 1; share < sharers; share++)
            add_to(&sum, room[share * n + i]);
        bf16 *to = p.du + (row0 + i / 2) * p.du_stride + part.column + tile * TILE_RANK + i % 2 * 4;
        *(uint2 *)to = make_uint2(pack_halves(sum.x, sum.y), pack_halves(sum.z, sum.w));
    }
}

// A block: one slab of columns, one chunk of rows, one rank tile (blockIdx x, y, z).
template <int PIECES>
static __global__ void __launch_bounds__(LORA_THREADS, BLOCKS_PER_SM)
    lora_outputs_kernel(output_params p)
{
    extern __shared__ __align__(16) float du_rows[]; // [warp, chunk_rows, 8]
    follow();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int slab = blockIdx.x, tile = blockIdx.z;
    const output_part part = p.part[part_of_slab(p, slab)];
    const int64_t row0 = (int64_t)blockIdx.y * p.chunk_rows;
    const int64_t last = min(p.T, row0 + p.chunk_rows);
    const int64_t warp_col = (int64_t)(slab - part.first_slab) * (PIECES * WARPS_COLUMNS) +
                             warp * PIECES * PIECE_COLUMNS;
    const int64_t col0 = warp_col + 8 * t;
    const bf16 *u = p.u + part.column + tile * TILE_RANK + 2 * t;
    uint32_t b[PIECES][4];
    float db[PIECES][2][4] = {};
#pragma unroll
    for (int n = 0; n < PIECES; n++)
        load_b(b[n], part, col0 + n * PIECE_COLUMNS, tile * TILE_RANK + g, p.rank, p.scale);

    // on their way while the strip before theirs is worked on
    piece next[PIECES];
    uint32_t next_u[2];
    auto fetch = [&](int64_t row) {
#pragma unroll
        for (int n = 0; n < PIECES; n++)
            load_piece(&next[n], part.dy, p.dy_stride, row, last, col0 + n * PIECE_COLUMNS,
                       part.out);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int64_t r = row + 8 * half;
            next_u[half] = r < last ? *(const uint32_t *)(u + r * p.x_stride) : 0u;
        }
    };
    fetch(row0 + g);
    for (int64_t row = row0 + g; row - g < last; row += PIECE_ROWS) {
        float du[4] = {};
        piece dy[PIECES];
        const uint32_t u_turned[2] = {turn(next_u[0]), turn(next_u[1])};
#pragma unroll
        for (int n = 0; n < PIECES; n++)
            dy[n] = next[n];
        fetch(row + PIECE_ROWS);
#pragma unroll
        for (int n = 0; n < PIECES; n++)
            run_outputs(du, db[n], dy[n].word, b[n], u_turned);
        float *to = du_rows + ((int64_t)warp * p.chunk_rows + row - row0) * TILE_RANK + 2 * t;
        *(float2 *)to = make_float2(du[0], du[1]);
        *(float2 *)(to + 8 * TILE_RANK) = make_float2(du[2], du[3]);
    }
    store_db<PIECES>(p, part, db, warp_col, tile);
    __syncthreads();
    float *du_to = p.du_parts + (((int64_t)slab * p.n_tiles + tile) * p.T + row0) * TILE_RANK;
    for (int i = threadIdx.x; i < (int)(last - row0) * TILE_RANK; i += LORA_THREADS) {
        float sum = 0.0f;
        for (int w = 0; w < LORA_WARPS; w++)
            sum += du_rows[w * p.chunk_rows * TILE_RANK + i];
        __stcg(du_to + i, sum);
    }
    add_slabs(p, part_of_slab(p, slab), tile, row0, last, (float4 *)du_rows);
}

static int slabs_of(const qvl_linear *lin, int pieces)
{
    int n = 0;
    for (int i = 0; i < lin->n_adapters; i++)
        n += (int)divide_up(lin->adapters[i].out, pieces * WARPS_COLUMNS);
    return n;
}

// Wide slabs read u less often; narrow ones make enough blocks of few columns.
static int pieces_for(const qvl_device *dev, const qvl_linear *lin, int64_t T)
{
    const int64_t slots = BLOCKS_PER_SM * state_of(dev)->n_sms;
    int pieces = MOST_PIECES;
    while (pieces > 1 &&
           slabs_of(lin, pieces) * tiles_of(lin) * divide_up(T, QVL_LEAST_CHUNK_ROWS) < slots)
        pieces /= 2;
    return pieces;
}

static output_params describe(const qvl_device *dev, const qvl_linear_backward_args *args)
{
    const qvl_linear *lin = args->linear;
    output_params p = {};
    p.pieces = pieces_for(dev, lin, args->T);
    for (int i = 0; i < lin->n_adapters; i++) {
        const qvl_adapter *a = &lin->adapters[i];
        p.part[i] = {(const bf16 *)args->dy + a->out_offset, a->b,     a->db, a->out, p.out_total,
                     (int)(i * tiles_of(lin) * TILE_RANK),   p.n_slabs};
        p.n_slabs += (int)divide_up(a->out, p.pieces * WARPS_COLUMNS);
        p.out_total += a->out;
    }
    p.n_parts = lin->n_adapters;
    p.rank = (int)lin->rank;
    p.n_tiles = (int)tiles_of(lin);
    p.chunk_rows = (int)qvl_chunk_rows(args->T, (int64_t)p.n_slabs * p.n_tiles,
                                       BLOCKS_PER_SM * state_of(dev)->n_sms, OUTPUT_ROWS);
    p.n_chunks = (int)divide_up(args->T, p.chunk_rows);
    p.T = args->T;
    p.dy_stride = lin->out;
    p.x_stride = args->x_stride;
    p.u = (const bf16 *)args->x + lin->in;
    p.scale = lin->scale;
    p.du_stride = (int)tail_used(lin);
    p.counters = state_of(dev)->counters;
    return p;
}

static cudaError_t launch_outputs(const output_params &p, cudaStream_t stream)
{
    const size_t shared = (size_t)LORA_WARPS * p.chunk_rows * TILE_RANK * sizeof(float);
    void (*kernel)(output_params) =
        p.pieces == 1 ? lora_outputs_kernel<1> : lora_outputs_kernel<MOST_PIECES>;
    static bool is_set[MOST_PIECES + 1];
    const size_t most = LORA_WARPS * OUTPUT_ROWS * TILE_RANK * sizeof(float);
    static_assert(most <= MOST_SHARED_BYTES, "not on every GPU");
    cudaError_t code = allow_shared(kernel, &is_set[p.pieces], most);
    if (code == cudaSuccess)
        code = launch(kernel, dim3((unsigned)p.n_slabs, (unsigned)p.n_chunks, (unsigned)p.n_tiles),
                      LORA_THREADS, shared, stream, p);
    return code;
}

size_t lora_du_scratch(const qvl_device *dev, const qvl_workspace_limits *limits)
{
    const int64_t R8 = divide_up(limits->rank, TILE_RANK) * TILE_RANK;
    const int64_t widest = MOST_PIECES * WARPS_COLUMNS,
                  slots = BLOCKS_PER_SM * state_of(dev)->n_sms;
    const int64_t wide = (divide_up(limits->out_max, widest) + QVL_MAX_FUSED) * limits->tokens;
    // with narrow slabs, fewer than slots wide ones of QVL_LEAST_CHUNK_ROWS rows are cut into
    // MOST_PIECES each
    const int64_t narrow = slots * QVL_LEAST_CHUNK_ROWS * MOST_PIECES;
    return (size_t)((wide > narrow ? wide : narrow) * R8) * sizeof(float) + 256;
}

size_t lora_db_scratch(const qvl_device *dev, const qvl_workspace_limits *limits)
{
    const int64_t R8 = divide_up(limits->rank, TILE_RANK) * TILE_RANK;
    return qvl_parts_bound(limits->tokens, limits->out_max, MOST_PIECES * WARPS_COLUMNS,
                           BLOCKS_PER_SM * state_of(dev)->n_sms, OUTPUT_ROWS) *
               (size_t)R8 * sizeof(float) +
           256;
}

qvl_status lora_backward_outputs(qvl_device *dev, const qvl_linear_backward_args *args,
                                 output_params *out, size_t *used, qvl_err *err)
{
    output_params p = describe(dev, args);
    size_t reused = 0; // the parts of du are done with before the inputs' parts are written
    void *memory = NULL;
    qvl_status rc = QVL_OK;
    if ((int64_t)p.n_chunks * p.n_tiles * p.n_parts > LORA_COUNTERS)
        return qvl_fail(err, QVL_EINTERNAL, "adapters backward: %lld rows are too many at once",
                        (long long)args->T);
    QVL_TRY(scratch(dev, &memory, used, (size_t)(args->T * p.du_stride) * sizeof(bf16), err));
    p.du = (bf16 *)memory;
    QVL_TRY(scratch(dev, &memory, used,
                    (size_t)(p.n_chunks * p.n_tiles * p.out_total * TILE_RANK) * sizeof(float),
                    err));
    p.db_parts = (float *)memory;
    reused = *used;
    QVL_TRY(scratch(dev, &memory, &reused,
                    (size_t)(p.n_slabs * p.n_tiles * p.T * TILE_RANK) * sizeof(float), err));
    p.du_parts = (float *)memory;
    rc = check(launch_outputs(p, compute_of(dev)), "adapters backward", err);
    *out = p;
out:
    return rc;
}

} // namespace qvl
