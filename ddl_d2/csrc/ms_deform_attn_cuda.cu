// CUDA kernels of ddl_d2::ms_deform_attn.
//
// A (query, head) belongs to a group of 4 to 32 lanes of one warp; a lane owns kVec neighboring channels (16 bytes, or
// one channel where D or the addresses do not allow that). What does not depend on the channel is computed once per
// point, by one lane, and left in shared memory for the group. A block owns one head of neighboring queries, which
// sample the same pixels, and blocks run image by image, so that values stay in the L1 and L2 caches.
//
// Offsets inside an image are 32-bit (checked on entry), the addresses of images and queries 64-bit.
#include "ms_deform_attn.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime.h>

#include <limits>
#include <tuple>
#include <type_traits>

namespace ddl_d2 {
namespace {

constexpr int kChunk = 16;  // points that are set up together
constexpr int kRow = kChunk + 1;  // the distance of groups in shared memory: their rows start in different banks
constexpr int kMinLanes = 4;
constexpr int kMaxLevels = 32;
constexpr unsigned kFullWarp = 0xffffffffu;

struct Problem {
  int64_t pixels;  // S
  int32_t heads, channels, queries;
  int32_t levels, points_per_level;
  int32_t query_blocks;  // blocks of queries in an image
  int32_t lanes;  // of a group, a power of two
  // Levels either by value, or on the device if spatial_shapes is there (then level[] is unused).
  const int64_t* device_shapes;
  const int64_t* device_starts;
  Level level[kMaxLevels];
};

template <typename T>
struct alignas(16) Four {
  T v[4];
};

template <typename T, int kVec>
struct alignas(sizeof(T) * kVec) Pack {
  T v[kVec];
};

template <int kVec, typename T, typename Math>
__device__ __forceinline__ void load(const T* pointer, Math (&out)[kVec]) {
  Pack<T, kVec> pack;
  if constexpr (sizeof(pack) == 16) {
    const uint4 raw = __ldg(reinterpret_cast<const uint4*>(pointer));
    static_assert(sizeof(raw) == sizeof(pack));
    memcpy(&pack, &raw, sizeof(raw));
  } else {
    pack = *reinterpret_cast<const Pack<T, kVec>*>(pointer);
  }
#pragma unroll
  for (int i = 0; i < kVec; ++i) {
    out[i] = static_cast<Math>(pack.v[i]);
  }
}

template <int kVec, typename T, typename Math>
__device__ __forceinline__ void store(T* pointer, const Math (&v)[kVec]) {
  Pack<T, kVec> pack;
#pragma unroll
  for (int i = 0; i < kVec; ++i) {
    pack.v[i] = static_cast<T>(v[i]);
  }
  *reinterpret_cast<Pack<T, kVec>*>(pointer) = pack;
}

// pointer[i] += weight * v[i], by as few atomic additions as the device has.
template <int kVec, typename Math>
__device__ __forceinline__ void atomic_add(Math* pointer, Math weight, const Math (&v)[kVec]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr int kStep = std::is_same_v<Math, float> && kVec % 4 == 0 ? 4 : 1;
  if constexpr (kStep == 4) {
#pragma unroll
    for (int i = 0; i < kVec; i += kStep) {
      const float4 four = {weight * v[i], weight * v[i + 1], weight * v[i + 2], weight * v[i + 3]};
      atomicAdd(reinterpret_cast<float4*>(pointer + i), four);
    }
  }
#else
  constexpr int kStep = 1;
#endif
  if constexpr (kStep == 1) {
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      atomicAdd(pointer + i, weight * v[i]);
    }
  }
}

// Where this thread works.
struct Place {
  int32_t head, lane, group;
  int64_t image, query;  // query counts through all images
  bool active;  // false in groups beyond the last query, which follow the others but read and write no point
};

__device__ __forceinline__ Place find_place(const Problem& p) {
  Place place;
  place.group = threadIdx.x / p.lanes;
  place.lane = threadIdx.x & (p.lanes - 1);
  const int32_t groups = blockDim.x / p.lanes;
  const int32_t row = blockIdx.x / p.heads;
  place.head = blockIdx.x - row * p.heads;
  const int32_t image = row / p.query_blocks;
  const int32_t query = (row - image * p.query_blocks) * groups + place.group;
  place.active = query < p.queries;
  place.image = image;
  place.query = static_cast<int64_t>(image) * p.queries + (place.active ? query : p.queries - 1);
  return place;
}

// Levels into shared memory. Levels that come from the device were not seen by the host: they are checked here, and one
// that does not fit becomes a single pixel, so that nothing outside the value is read even where asserts are off.
__device__ __forceinline__ void load_levels(const Problem& p, Level* levels) {
  if (threadIdx.x < p.levels) {
    Level level;
    if (p.device_shapes != nullptr) {
      const int64_t height = p.device_shapes[2 * threadIdx.x];
      const int64_t width = p.device_shapes[2 * threadIdx.x + 1];
      const int64_t start = p.device_starts[threadIdx.x];
      const bool fits = height > 0 && width > 0 && start >= 0 && height <= p.pixels && width <= p.pixels &&
                        start <= p.pixels - height * width;
      CUDA_KERNEL_ASSERT(fits && "ms_deform_attn: spatial_shapes or level_start_index do not fit value");
      level.height = fits ? static_cast<int32_t>(height) : 1;
      level.width = fits ? static_cast<int32_t>(width) : 1;
      level.start = fits ? static_cast<int32_t>(start) : 0;
    } else {
      level = p.level[threadIdx.x];
    }
    levels[threadIdx.x] = level;
  }
  __syncthreads();
}

// Element offsets in the image (the first is -1 for a point to skip) and weights of points [first, first + count).
template <typename Math>
__device__ __forceinline__ void set_up(
    const Problem& p, const Place& place, const Level* levels, int32_t first, int32_t count, const Math* location,
    const Math* weight, int4* offsets, Four<Math>* weights) {
  const int32_t stride = p.heads * p.channels;
  const int32_t base = place.head * p.channels;
  for (int32_t i = place.lane; i < count; i += p.lanes) {
    const int32_t point = first + i;
    const Level level = levels[point / p.points_per_level];
    const SamplingPoint<Math> s = sampling_point<Math>(
        location[2 * point], location[2 * point + 1], level.height, level.width, level.start);
    const Math w = weight[point];
    int4 offset;
    offset.x = s.pixel[0] * stride + base;
    offset.y = s.pixel[1] * stride + base;
    offset.z = s.pixel[2] * stride + base;
    offset.w = s.pixel[3] * stride + base;
    if (!place.active || !contributes(s.inside, w)) {
      offset.x = -1;
    }
    offsets[i] = offset;
    weights[i].v[0] = w * s.top * s.left;
    weights[i].v[1] = w * s.top * s.right;
    weights[i].v[2] = w * s.bottom * s.left;
    weights[i].v[3] = w * s.bottom * s.right;
  }
}

template <typename T, typename Math, int kVec, int kThreads>
__global__ void __launch_bounds__(kThreads) forward_kernel(
    const Problem p, const T* __restrict__ value, const Math* __restrict__ location, const Math* __restrict__ weight,
    T* __restrict__ out) {
  __shared__ Level levels[kMaxLevels];
  extern __shared__ __align__(16) unsigned char scratch[];
  const Place place = find_place(p);
  const int32_t groups = kThreads / p.lanes;
  int4* const offsets = reinterpret_cast<int4*>(scratch) + place.group * kRow;
  Four<Math>* const weights = reinterpret_cast<Four<Math>*>(scratch + groups * kRow * sizeof(int4)) + place.group * kRow;
  load_levels(p, levels);

  const int32_t points = p.levels * p.points_per_level;
  const int64_t row = place.query * p.heads + place.head;
  location += row * points * 2;
  weight += row * points;
  value += place.image * p.pixels * p.heads * p.channels;
  out += row * p.channels;

  // All loops have the same number of rounds in every lane: __syncwarp() is met by whole warps.
  for (int32_t first_channel = 0; first_channel < p.channels; first_channel += p.lanes * kVec) {
    const int32_t channel = first_channel + place.lane * kVec;
    const bool has_channel = channel < p.channels;
    Math sum[kVec] = {};
    for (int32_t first = 0; first < points; first += kChunk) {
      const int32_t count = min(kChunk, points - first);
      if (first_channel == 0 || points > kChunk) {
        __syncwarp();
        set_up(p, place, levels, first, count, location, weight, offsets, weights);
        __syncwarp();
      }
      if (has_channel) {
#pragma unroll 2
        for (int32_t i = 0; i < count; ++i) {
          const int4 offset = offsets[i];
          if (offset.x < 0) {
            continue;
          }
          const Four<Math> w = weights[i];
          Math v[4][kVec];
          load<kVec>(value + offset.x + channel, v[0]);
          load<kVec>(value + offset.y + channel, v[1]);
          load<kVec>(value + offset.z + channel, v[2]);
          load<kVec>(value + offset.w + channel, v[3]);
#pragma unroll
          for (int k = 0; k < 4; ++k) {
#pragma unroll
            for (int j = 0; j < kVec; ++j) {
              sum[j] += w.v[k] * v[k][j];
            }
          }
        }
      }
    }
    if (has_channel && place.active) {
      store<kVec>(out + channel, sum);
    }
  }
}

// The sums of four numbers over the lanes of a group, by 2 + 1 + 1 + ... shuffles: every exchange halves what a lane
// still has to add. Lane b1 b0 (its two lowest bits) ends with the sum number 2 * b0 + b1. Whole warps only.
template <typename Math>
__device__ __forceinline__ Math sum_over_group(const Math (&v)[4], int32_t lane, int32_t lanes) {
  const bool b0 = (lane & 1) != 0;
  const bool b1 = (lane & 2) != 0;
  const Math low = (b0 ? v[2] : v[0]) + __shfl_xor_sync(kFullWarp, b0 ? v[0] : v[2], 1);
  const Math high = (b0 ? v[3] : v[1]) + __shfl_xor_sync(kFullWarp, b0 ? v[1] : v[3], 1);
  Math sum = (b1 ? high : low) + __shfl_xor_sync(kFullWarp, b1 ? low : high, 2);
  for (int32_t distance = 4; distance < lanes; distance *= 2) {
    sum += __shfl_xor_sync(kFullWarp, sum, distance);
  }
  return sum;
}

template <typename T, typename Math, int kVec, int kThreads>
__global__ void __launch_bounds__(kThreads) backward_kernel(
    const Problem p, const T* __restrict__ grad_out, const T* __restrict__ value, const Math* __restrict__ location,
    const Math* __restrict__ weight, Math* __restrict__ grad_value, Math* __restrict__ grad_location,
    Math* __restrict__ grad_weight) {
  __shared__ Level levels[kMaxLevels];
  extern __shared__ __align__(16) unsigned char scratch[];
  const Place place = find_place(p);
  const int32_t rows = kThreads / p.lanes * kRow;
  int4* const offsets = reinterpret_cast<int4*>(scratch) + place.group * kRow;
  Four<Math>* const fours = reinterpret_cast<Four<Math>*>(scratch + rows * sizeof(int4));
  Four<Math>* const weights = fours + place.group * kRow;
  Four<Math>* const dots = fours + rows + place.group * kRow;
  load_levels(p, levels);

  const int32_t points = p.levels * p.points_per_level;
  const int64_t row = place.query * p.heads + place.head;
  const int64_t image = place.image * p.pixels * p.heads * p.channels;
  location += row * points * 2;
  weight += row * points;
  grad_location += row * points * 2;
  grad_weight += row * points;
  grad_out += row * p.channels;
  value += image;
  grad_value += image;

  // Usually a group covers all channels, and the output gradient stays in registers.
  Math grad[kVec] = {};
  if (place.lane * kVec < p.channels) {
    load<kVec>(grad_out + place.lane * kVec, grad);
  }
  const bool one_round = p.channels <= p.lanes * kVec;

  for (int32_t first = 0; first < points; first += kChunk) {
    const int32_t count = min(kChunk, points - first);
    __syncwarp();
    set_up(p, place, levels, first, count, location, weight, offsets, weights);
    __syncwarp();
    for (int32_t i = 0; i < count; ++i) {
      const int4 offset = offsets[i];
      Math dot[4] = {};
      if (offset.x >= 0) {
        const Four<Math> w = weights[i];
        const int32_t corner[4] = {offset.x, offset.y, offset.z, offset.w};
        for (int32_t channel = place.lane * kVec; channel < p.channels; channel += p.lanes * kVec) {
          if (!one_round) {
            load<kVec>(grad_out + channel, grad);
          }
          Math v[4][kVec];
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            load<kVec>(value + corner[k] + channel, v[k]);
          }
#pragma unroll
          for (int k = 0; k < 4; ++k) {
#pragma unroll
            for (int j = 0; j < kVec; ++j) {
              dot[k] += v[k][j] * grad[j];
            }
            if (w.v[k] != static_cast<Math>(0)) {  // corners outside are moved to pixels inside: nothing to add
              atomic_add<kVec>(grad_value + corner[k] + channel, w.v[k], grad);
            }
          }
        }
      }
      __syncwarp();
      const Math sum = sum_over_group(dot, place.lane, p.lanes);
      if (place.lane < 4) {
        dots[i].v[2 * (place.lane & 1) + (place.lane >> 1)] = sum;
      }
    }
    __syncwarp();
    for (int32_t i = place.lane; i < count && place.active; i += p.lanes) {
      const int32_t point = first + i;
      const Level level = levels[point / p.points_per_level];
      const SamplingPoint<Math> s = sampling_point<Math>(
          location[2 * point], location[2 * point + 1], level.height, level.width, level.start);
      const Four<Math> dot = dots[i];
      const PointGradient<Math> g = point_gradient<Math>(
          s, weight[point], dot.v[0], dot.v[1], dot.v[2], dot.v[3], level.height, level.width);
      grad_location[2 * point] = g.x;
      grad_location[2 * point + 1] = g.y;
      grad_weight[point] = g.weight;
    }
  }
}

// ---- host

bool aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

// Lanes of a group: the fewest that cover the channels, a power of two.
int32_t lanes_for(int64_t channels, int vec) {
  int32_t lanes = kMinLanes;
  while (lanes < 32 && static_cast<int64_t>(lanes) * vec < channels) {
    lanes *= 2;
  }
  return lanes;
}

Problem make_problem(
    const at::Tensor& value, const at::Tensor& shapes, const at::Tensor& starts, const at::Tensor& locations) {
  const int64_t limit = std::numeric_limits<int32_t>::max();
  TORCH_CHECK(
      value.size(1) * value.size(2) * value.size(3) <= limit && locations.size(1) <= limit,
      "ms_deform_attn: one image of value has more than 2^31 - 1 numbers, or there are more queries, on CUDA: shape ",
      value.sizes());
  TORCH_CHECK(
      shapes.size(0) <= kMaxLevels, "ms_deform_attn: at most ", kMaxLevels, " levels on CUDA, got ", shapes.size(0));
  TORCH_CHECK(
      locations.size(3) * locations.size(4) <= limit, "ms_deform_attn: too many points: ", locations.sizes());
  Problem p = {};
  p.pixels = value.size(1);
  p.heads = static_cast<int32_t>(value.size(2));
  p.channels = static_cast<int32_t>(value.size(3));
  p.queries = static_cast<int32_t>(locations.size(1));
  p.levels = static_cast<int32_t>(locations.size(3));
  p.points_per_level = static_cast<int32_t>(locations.size(4));
  if (shapes.is_cpu()) {
    const int64_t* shape = shapes.const_data_ptr<int64_t>();
    const int64_t* start = starts.const_data_ptr<int64_t>();
    for (int32_t l = 0; l < p.levels; ++l) {
      p.level[l] = {
          static_cast<int32_t>(shape[2 * l]), static_cast<int32_t>(shape[2 * l + 1]), static_cast<int32_t>(start[l])};
    }
  } else {
    p.device_shapes = shapes.const_data_ptr<int64_t>();
    p.device_starts = starts.const_data_ptr<int64_t>();
  }
  return p;
}

// Completes `p` for groups of kVec channels per lane; returns the number of blocks.
unsigned plan(Problem& p, int64_t images, int vec, int threads) {
  p.lanes = lanes_for(p.channels, vec);
  const int32_t groups = threads / p.lanes;
  p.query_blocks = (p.queries - 1) / groups + 1;
  const int64_t blocks = images * p.query_blocks * p.heads;
  TORCH_CHECK(blocks <= std::numeric_limits<int32_t>::max(), "ms_deform_attn: too much work for one CUDA grid");
  return static_cast<unsigned>(blocks);
}

template <typename T, typename Math, int kVec>
void launch_forward(
    Problem p, const at::Tensor& value, const at::Tensor& locations, const at::Tensor& weights, at::Tensor& out) {
  constexpr int kThreads = sizeof(Math) == 8 ? 128 : 256;  // at most 48 KiB of shared memory
  const unsigned blocks = plan(p, value.size(0), kVec, kThreads);
  const size_t shared = kThreads / p.lanes * kRow * (sizeof(int4) + sizeof(Four<Math>));
  forward_kernel<T, Math, kVec, kThreads><<<blocks, kThreads, shared, c10::cuda::getCurrentCUDAStream()>>>(
      p, value.const_data_ptr<T>(), locations.const_data_ptr<Math>(), weights.const_data_ptr<Math>(),
      out.mutable_data_ptr<T>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename T, typename Math>
void run_forward(
    const Problem& p, const at::Tensor& value, const at::Tensor& locations, const at::Tensor& weights,
    at::Tensor& out) {
  constexpr int kVec = 16 / sizeof(T);
  if (p.channels % kVec == 0 && aligned(value.const_data_ptr()) && aligned(out.const_data_ptr())) {
    launch_forward<T, Math, kVec>(p, value, locations, weights, out);
  } else {
    launch_forward<T, Math, 1>(p, value, locations, weights, out);
  }
}

struct BackwardTensors {
  at::Tensor grad_out, value, locations, weights, grad_value, grad_locations, grad_weights;
};

template <typename T, typename Math, int kVec>
void launch_backward(Problem p, const BackwardTensors& t) {
  constexpr int kThreads = 128;
  const unsigned blocks = plan(p, t.value.size(0), kVec, kThreads);
  const size_t shared = kThreads / p.lanes * kRow * (sizeof(int4) + 2 * sizeof(Four<Math>));
  backward_kernel<T, Math, kVec, kThreads><<<blocks, kThreads, shared, c10::cuda::getCurrentCUDAStream()>>>(
      p, t.grad_out.const_data_ptr<T>(), t.value.const_data_ptr<T>(), t.locations.const_data_ptr<Math>(),
      t.weights.const_data_ptr<Math>(), t.grad_value.mutable_data_ptr<Math>(),
      t.grad_locations.mutable_data_ptr<Math>(), t.grad_weights.mutable_data_ptr<Math>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename T, typename Math>
void run_backward(const Problem& p, const BackwardTensors& t) {
  constexpr int kVec = 16 / sizeof(T);
  if (p.channels % kVec == 0 && aligned(t.value.const_data_ptr()) && aligned(t.grad_out.const_data_ptr()) &&
      aligned(t.grad_value.const_data_ptr())) {
    launch_backward<T, Math, kVec>(p, t);
  } else {
    launch_backward<T, Math, 1>(p, t);
  }
}

}  // namespace

// ---- entry points; the arguments were validated in ms_deform_attn.cpp

at::Tensor ms_deform_attn_cuda(
    const at::Tensor& value, const at::Tensor& spatial_shapes, const at::Tensor& level_start_index,
    const at::Tensor& sampling_locations, const at::Tensor& attention_weights) {
  const c10::cuda::CUDAGuard guard(value.device());
  const at::ScalarType type = value.scalar_type();
  const at::ScalarType math = type == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor v = value.contiguous();
  const at::Tensor locations = sampling_locations.to(math).contiguous();
  const at::Tensor weights = attention_weights.to(math).contiguous();
  at::Tensor out = at::empty({v.size(0), locations.size(1), v.size(2) * v.size(3)}, v.options());
  if (weights.numel() == 0 || v.numel() == 0) {
    return out.zero_();
  }
  const at::Tensor shapes = spatial_shapes.contiguous();
  const at::Tensor starts = level_start_index.contiguous();
  const Problem p = make_problem(v, shapes, starts, locations);
  if (type == at::kDouble) {
    run_forward<double, double>(p, v, locations, weights, out);
  } else if (type == at::kHalf) {
    run_forward<c10::Half, float>(p, v, locations, weights, out);
  } else if (type == at::kBFloat16) {
    run_forward<c10::BFloat16, float>(p, v, locations, weights, out);
  } else {
    run_forward<float, float>(p, v, locations, weights, out);
  }
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> ms_deform_attn_backward_cuda(
    const at::Tensor& grad_output, const at::Tensor& value, const at::Tensor& spatial_shapes,
    const at::Tensor& level_start_index, const at::Tensor& sampling_locations, const at::Tensor& attention_weights) {
  at::globalContext().alertNotDeterministic("ddl_d2::ms_deform_attn_backward");
  const c10::cuda::CUDAGuard guard(value.device());
  const at::ScalarType type = value.scalar_type();
  const at::ScalarType math = type == at::kDouble ? at::kDouble : at::kFloat;
  BackwardTensors t;
  t.grad_out = grad_output.contiguous();
  t.value = value.contiguous();
  t.locations = sampling_locations.to(math).contiguous();
  t.weights = attention_weights.to(math).contiguous();
  // Sums in float32 also for 16-bit values: their atomic additions are slow, and round away small gradients.
  t.grad_value = at::zeros(t.value.sizes(), t.value.options().dtype(math));
  t.grad_locations = at::empty(t.locations.sizes(), t.locations.options());
  t.grad_weights = at::empty(t.weights.sizes(), t.weights.options());
  if (t.weights.numel() == 0 || t.value.numel() == 0) {
    t.grad_locations.zero_();
    t.grad_weights.zero_();
  } else {
    const at::Tensor shapes = spatial_shapes.contiguous();
    const at::Tensor starts = level_start_index.contiguous();
    const Problem p = make_problem(t.value, shapes, starts, t.locations);
    if (type == at::kDouble) {
      run_backward<double, double>(p, t);
    } else if (type == at::kHalf) {
      run_backward<c10::Half, float>(p, t);
    } else if (type == at::kBFloat16) {
      run_backward<c10::BFloat16, float>(p, t);
    } else {
      run_backward<float, float>(p, t);
    }
  }
  return {
      t.grad_value.to(type), t.grad_locations.to(sampling_locations.scalar_type()),
      t.grad_weights.to(attention_weights.scalar_type())};
}

}  // namespace ddl_d2
