// CPU kernels of ddl_d2::ms_deform_attn: choice of the instruction set, order of the work, threads.
#include "ms_deform_attn.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <atomic>
#include <cstring>
#include <string>
#include <tuple>
#include <vector>

namespace ddl_d2 {
namespace {

// Points that are set up together; a multiple of the lanes of every vector.
constexpr int kBlock = 16;

// The level of each of kBlock points (1x1 in places beyond the last point).
struct alignas(64) LevelOfPoint {
  int32_t height[kBlock], width[kBlock], start[kBlock];
};

// A copy of the last few points, so that set-up can always read kBlock of them.
template <typename T>
struct alignas(64) Tail {
  T location[2 * kBlock];
  T weight[kBlock];

  // Whole copies instead of a loop with a condition: GCC 12 vectorises that one so that it reads beyond the end.
  void copy(const T* from_location, const T* from_weight, int64_t count) {
    std::memset(this, 0, sizeof(*this));
    std::memcpy(location, from_location, 2 * count * sizeof(T));
    std::memcpy(weight, from_weight, count * sizeof(T));
  }
};

template <typename T>
struct Sizes {
  int64_t images, pixels, heads, channels, queries;
  int64_t points;  // L * P
  int64_t total_points;  // N * Q * H * L * P
  std::vector<LevelOfPoint> levels;  // one for every kBlock of the L * P points
  const int32_t* order;  // the order in which the queries of an image are visited, or null
  const T* location;  // [N, Q, H, L * P, 2]
  const T* weight;  // [N, Q, H, L * P]
};

template <typename T, typename Value>
struct ForwardArgs : Sizes<T> {
  const Value* value;  // [N, S, H, D]
  Value* out;  // [N, Q, H, D]
};

template <typename T>
struct BackwardArgs : Sizes<T> {
  const T* value;  // [N, S, H, D]
  const T* grad_out;  // [N, Q, H, D]
  T* grad_value;  // zeros on entry
  T* grad_location;
  T* grad_weight;
};

}  // namespace
}  // namespace ddl_d2

#pragma GCC diagnostic ignored "-Wpsabi"  // no vector crosses a function that is not inlined

#define DDL_ISA portable
#define DDL_TARGET
#define DDL_VECTOR_BYTES 16
#include "ms_deform_attn_cpu_kernel.h"
#undef DDL_ISA
#undef DDL_TARGET
#undef DDL_VECTOR_BYTES

#if defined(__x86_64__)
#define DDL_ISA avx2
#define DDL_TARGET __attribute__((target("avx2,fma")))
#define DDL_VECTOR_BYTES 32
#include "ms_deform_attn_cpu_kernel.h"
#undef DDL_ISA
#undef DDL_TARGET
#undef DDL_VECTOR_BYTES

#define DDL_ISA avx512
#define DDL_TARGET __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")))
#define DDL_VECTOR_BYTES 64
#include "ms_deform_attn_cpu_kernel.h"
#undef DDL_ISA
#undef DDL_TARGET
#undef DDL_VECTOR_BYTES
#endif

namespace ddl_d2 {
namespace {

// ---- instruction set

enum class Capability { portable, avx2, avx512 };

Capability best_capability() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma")) {
    return Capability::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return Capability::avx2;
  }
#endif
  return Capability::portable;
}

std::atomic<Capability>& capability() {
  static std::atomic<Capability> current{best_capability()};
  return current;
}

// ---- order of the queries

// When there is a query for every pixel (self-attention of an encoder), visit all levels of one region of the image
// together: the queries of a region sample the same pixels. Tiles are kTile cells of the finest level wide.
constexpr int64_t kTile = 16;

std::vector<int32_t> tile_order(const std::vector<Level>& levels, int64_t queries, int64_t pixels) {
  std::vector<int32_t> order;
  int64_t height = 0;
  int64_t width = 0;
  for (const Level& level : levels) {
    height = std::max<int64_t>(height, level.height);
    width = std::max<int64_t>(width, level.width);
  }
  const int64_t tiles_y = (height + kTile - 1) / kTile;
  const int64_t tiles_x = (width + kTile - 1) / kTile;
  if (queries != pixels || tiles_y * tiles_x <= 1) {
    return order;
  }
  order.reserve(queries);
  const auto edge = [](int64_t tile, int64_t tiles, int64_t size) { return (tile * size + tiles - 1) / tiles; };
  for (int64_t ty = 0; ty < tiles_y; ++ty) {
    for (int64_t tx = 0; tx < tiles_x; ++tx) {
      for (const Level& level : levels) {
        const int64_t bottom = edge(ty + 1, tiles_y, level.height);
        const int64_t right = edge(tx + 1, tiles_x, level.width);
        for (int64_t y = edge(ty, tiles_y, level.height); y < bottom; ++y) {
          for (int64_t x = edge(tx, tiles_x, level.width); x < right; ++x) {
            order.push_back(static_cast<int32_t>(level.start + y * level.width + x));
          }
        }
      }
    }
  }
  return order;
}

// ---- arguments

std::vector<Level> read_levels(const at::Tensor& spatial_shapes, const at::Tensor& level_start_index) {
  const at::Tensor shapes = spatial_shapes.contiguous();
  const at::Tensor starts = level_start_index.contiguous();
  const int64_t* shape = shapes.const_data_ptr<int64_t>();
  const int64_t* start = starts.const_data_ptr<int64_t>();
  std::vector<Level> levels;
  for (int64_t l = 0; l < starts.numel(); ++l) {
    levels.push_back(
        {static_cast<int32_t>(shape[2 * l]), static_cast<int32_t>(shape[2 * l + 1]), static_cast<int32_t>(start[l])});
  }
  return levels;
}

// value, locations and weights are contiguous, locations and weights in the type of the arithmetic.
template <typename T>
void fill_sizes(
    Sizes<T>& a, const at::Tensor& value, const std::vector<Level>& levels, const at::Tensor& locations,
    const at::Tensor& weights) {
  a.images = value.size(0);
  a.pixels = value.size(1);
  a.heads = value.size(2);
  a.channels = value.size(3);
  a.queries = locations.size(1);
  const int64_t points_per_level = locations.size(4);
  a.points = static_cast<int64_t>(levels.size()) * points_per_level;
  a.total_points = weights.numel();
  a.levels.resize((a.points + kBlock - 1) / kBlock);
  for (size_t b = 0; b < a.levels.size(); ++b) {
    for (int64_t i = 0; i < kBlock; ++i) {
      const int64_t point = static_cast<int64_t>(b) * kBlock + i;
      const Level level = point < a.points ? levels[point / points_per_level] : Level{1, 1, 0};
      a.levels[b].height[i] = level.height;
      a.levels[b].width[i] = level.width;
      a.levels[b].start[i] = level.start;
    }
  }
  a.location = locations.const_data_ptr<T>();
  a.weight = weights.const_data_ptr<T>();
}

// Queries (or heads) per thread below which threads cost more than they save.
int64_t grain(int64_t work_per_item) {
  return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, work_per_item));
}

template <typename T, typename Value>
void run_forward(
    const at::Tensor& value, const std::vector<Level>& levels, const at::Tensor& locations, const at::Tensor& weights,
    at::Tensor& out) {
  ForwardArgs<T, Value> a;
  fill_sizes<T>(a, value, levels, locations, weights);
  const std::vector<int32_t> order = tile_order(levels, a.queries, a.pixels);
  a.order = order.empty() ? nullptr : order.data();
  a.value = value.const_data_ptr<Value>();
  a.out = out.mutable_data_ptr<Value>();
  const Capability isa = capability();
  const int64_t work = a.heads * a.points * (a.channels + 8);
  at::parallel_for(0, a.images * a.queries, grain(work), [&](int64_t begin, int64_t end) {
#if defined(__x86_64__)
    if (isa == Capability::avx512) {
      return avx512::forward<T, Value>(a, begin, end);
    }
    if (isa == Capability::avx2) {
      return avx2::forward<T, Value>(a, begin, end);
    }
#endif
    portable::forward<T, Value>(a, begin, end);
  });
}

template <typename T>
void run_backward(
    const at::Tensor& grad_out, const at::Tensor& value, const std::vector<Level>& levels, const at::Tensor& locations,
    const at::Tensor& weights, at::Tensor& grad_value, at::Tensor& grad_locations, at::Tensor& grad_weights) {
  BackwardArgs<T> a;
  fill_sizes<T>(a, value, levels, locations, weights);
  const std::vector<int32_t> order = tile_order(levels, a.queries, a.pixels);
  a.order = order.empty() ? nullptr : order.data();
  a.value = value.const_data_ptr<T>();
  a.grad_out = grad_out.const_data_ptr<T>();
  a.grad_value = grad_value.mutable_data_ptr<T>();
  a.grad_location = grad_locations.mutable_data_ptr<T>();
  a.grad_weight = grad_weights.mutable_data_ptr<T>();
  const Capability isa = capability();
  const int64_t work = a.queries * a.points * (2 * a.channels + 16);
  at::parallel_for(0, a.images * a.heads, grain(work), [&](int64_t begin, int64_t end) {
#if defined(__x86_64__)
    if (isa == Capability::avx512) {
      return avx512::backward<T>(a, begin, end);
    }
    if (isa == Capability::avx2) {
      return avx2::backward<T>(a, begin, end);
    }
#endif
    portable::backward<T>(a, begin, end);
  });
}

}  // namespace

// ---- entry points; the arguments were validated in ms_deform_attn.cpp

// The instruction set in use ("portable", "avx2" or "avx512"); `force` changes it, for tests and benchmarks.
std::string cpu_capability(std::optional<std::string> force) {
  static const char* const names[] = {"portable", "avx2", "avx512"};
  if (force.has_value()) {
    const Capability best = best_capability();
    bool known = *force == "best";
    if (known) {
      capability() = best;
    }
    for (int i = 0; i < 3 && !known; ++i) {
      if (*force == names[i]) {
        TORCH_CHECK(
            i <= static_cast<int>(best), "ddl_d2: this CPU has no ", *force, "; the best it has is ",
            names[static_cast<int>(best)]);
        capability() = static_cast<Capability>(i);
        known = true;
      }
    }
    TORCH_CHECK(known, "ddl_d2: CPU capability must be portable, avx2, avx512 or best, not '", *force, "'");
  }
  return names[static_cast<int>(capability().load())];
}

at::Tensor ms_deform_attn_cpu(
    const at::Tensor& value, const at::Tensor& spatial_shapes, const at::Tensor& level_start_index,
    const at::Tensor& sampling_locations, const at::Tensor& attention_weights) {
  const std::vector<Level> levels = read_levels(spatial_shapes, level_start_index);
  const at::ScalarType type = value.scalar_type();
  // float16 has no vector conversion in the portable path and is not used on CPUs: it goes through float32.
  const at::ScalarType storage = type == at::kHalf ? at::kFloat : type;
  const at::ScalarType math = type == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor v = value.to(storage).contiguous();
  const at::Tensor locations = sampling_locations.to(math).contiguous();
  const at::Tensor weights = attention_weights.to(math).contiguous();
  at::Tensor out = at::empty({v.size(0), locations.size(1), v.size(2) * v.size(3)}, v.options());
  if (weights.numel() == 0 || v.numel() == 0) {
    return out.zero_().to(type);
  }
  if (storage == at::kDouble) {
    run_forward<double, double>(v, levels, locations, weights, out);
  } else if (storage == at::kBFloat16) {
    run_forward<float, c10::BFloat16>(v, levels, locations, weights, out);
  } else {
    run_forward<float, float>(v, levels, locations, weights, out);
  }
  return out.to(type);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> ms_deform_attn_backward_cpu(
    const at::Tensor& grad_output, const at::Tensor& value, const at::Tensor& spatial_shapes,
    const at::Tensor& level_start_index, const at::Tensor& sampling_locations, const at::Tensor& attention_weights) {
  const std::vector<Level> levels = read_levels(spatial_shapes, level_start_index);
  const at::ScalarType math = value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor v = value.to(math).contiguous();
  const at::Tensor locations = sampling_locations.to(math).contiguous();
  const at::Tensor weights = attention_weights.to(math).contiguous();
  const at::Tensor grad = grad_output.to(math).contiguous();
  at::Tensor grad_value = at::zeros(v.sizes(), v.options());
  at::Tensor grad_locations = at::empty(locations.sizes(), locations.options());
  at::Tensor grad_weights = at::empty(weights.sizes(), weights.options());
  if (weights.numel() == 0 || v.numel() == 0) {
    grad_locations.zero_();
    grad_weights.zero_();
  } else if (math == at::kDouble) {
    run_backward<double>(grad, v, levels, locations, weights, grad_value, grad_locations, grad_weights);
  } else {
    run_backward<float>(grad, v, levels, locations, weights, grad_value, grad_locations, grad_weights);
  }
  return {
      grad_value.to(value.scalar_type()), grad_locations.to(sampling_locations.scalar_type()),
      grad_weights.to(attention_weights.scalar_type())};
}

}  // namespace ddl_d2
