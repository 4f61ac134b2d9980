// The loops of the CPU kernel. Included once per instruction set by ms_deform_attn_cpu.cpp, which defines
//   DDL_ISA          the namespace of this copy
//   DDL_TARGET       the function attribute that lets the compiler use the instruction set
//   DDL_VECTOR_BYTES the widest vector
// Every function carries DDL_TARGET itself: GCC lowers vector types by the target of the function that names them,
// before it inlines. For the same reason there are no lambdas here. (Hence no include guard.)

namespace ddl_d2 {
namespace DDL_ISA {

#define DDL_INLINE DDL_TARGET inline __attribute__((always_inline))

template <typename T, int kBytes>
struct Vector {
  typedef T type __attribute__((vector_size(kBytes)));
};

template <typename V, typename T>
DDL_INLINE void load(const T* pointer, V& out) {
  __builtin_memcpy(&out, pointer, sizeof(V));
}

// bfloat16 is the upper half of a float.
template <typename V>
DDL_INLINE void load(const c10::BFloat16* pointer, V& out) {
  using Half = typename Vector<uint16_t, sizeof(V) / 2>::type;
  using Full = typename Vector<uint32_t, sizeof(V)>::type;
  Half half;
  __builtin_memcpy(&half, pointer, sizeof(half));
  const Full bits = __builtin_convertvector(half, Full) << 16;
  __builtin_memcpy(&out, &bits, sizeof(V));
}

template <typename T>
DDL_INLINE void load(const T* pointer, T& out) {
  out = *pointer;
}

DDL_INLINE void load(const c10::BFloat16* pointer, float& out) {
  out = static_cast<float>(*pointer);
}

template <typename V, typename T>
DDL_INLINE void store(T* pointer, const V& v) {
  __builtin_memcpy(pointer, &v, sizeof(V));
}

template <typename V>
DDL_INLINE void store(c10::BFloat16* pointer, const V& v) {
  float lanes[sizeof(V) / sizeof(float)];
  __builtin_memcpy(lanes, &v, sizeof(V));
  for (size_t i = 0; i < sizeof(V) / sizeof(float); ++i) {
    pointer[i] = c10::BFloat16(lanes[i]);
  }
}

// ---- set-up: everything about up to kBlock points that does not depend on the channel

template <typename T>
struct alignas(64) ForwardPoints {
  int32_t pixel[4][kBlock];
  T weight[4][kBlock];
  int32_t used[kBlock];
};

template <typename T>
DDL_INLINE void set_up(
    ForwardPoints<T>& out, const LevelOfPoint& levels, const T* __restrict__ location, const T* __restrict__ weight) {
  for (int i = 0; i < kBlock; ++i) {
    const SamplingPoint<T> p = sampling_point<T>(
        location[2 * i], location[2 * i + 1], levels.height[i], levels.width[i], levels.start[i]);
    const T w = weight[i];
    for (int k = 0; k < 4; ++k) {
      out.pixel[k][i] = p.pixel[k];
    }
    out.weight[0][i] = w * p.top * p.left;
    out.weight[1][i] = w * p.top * p.right;
    out.weight[2][i] = w * p.bottom * p.left;
    out.weight[3][i] = w * p.bottom * p.right;
    out.used[i] = contributes(p.inside, w);
  }
}

// ---- forward

// kVectors vectors of channels of one (query, head). Four chains of sums hide the latency of the additions.
template <typename V, int kVectors, typename T, typename Value>
DDL_INLINE void gather(
    const ForwardPoints<T>* blocks, int64_t points, const Value* value, int64_t stride, Value* out) {
  constexpr int kLanes = sizeof(V) / sizeof(T);
  constexpr int kChains = kVectors >= 4 ? 2 : 4;
  V sum[kChains][kVectors] = {};
  for (int64_t first = 0; first < points; first += kBlock, ++blocks) {
    const int count = static_cast<int>(points - first < kBlock ? points - first : kBlock);
    for (int i = 0; i < count; ++i) {
      if (!blocks->used[i]) {
        continue;
      }
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        const Value* pixel = value + blocks->pixel[k][i] * stride;
        const T w = blocks->weight[k][i];
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; ++j) {
          V v;
          load(pixel + j * kLanes, v);
          sum[k % kChains][j] += w * v;
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j) {
    V total = sum[0][j] + sum[1][j];
    if (kChains == 4) {
      total += sum[kChains - 2][j] + sum[kChains - 1][j];
    }
    store(out + j * kLanes, total);
  }
}

template <typename T, typename Value>
DDL_INLINE void gather_head(
    const ForwardPoints<T>* blocks, int64_t points, const Value* value, int64_t stride, int64_t channels, Value* out) {
  using Wide = typename Vector<T, DDL_VECTOR_BYTES>::type;
  using Narrow = typename Vector<T, 16>::type;
  constexpr int64_t kWide = sizeof(Wide) / sizeof(T);
  constexpr int64_t kNarrow = sizeof(Narrow) / sizeof(T);
  int64_t c = 0;
  for (; c + 4 * kWide <= channels; c += 4 * kWide) {
    gather<Wide, 4>(blocks, points, value + c, stride, out + c);
  }
  if (c + 2 * kWide <= channels) {
    gather<Wide, 2>(blocks, points, value + c, stride, out + c);
    c += 2 * kWide;
  }
  if (c + kWide <= channels) {
    gather<Wide, 1>(blocks, points, value + c, stride, out + c);
    c += kWide;
  }
  if (kWide > 2 * kNarrow && c + 2 * kNarrow <= channels) {
    gather<Narrow, 2>(blocks, points, value + c, stride, out + c);
    c += 2 * kNarrow;
  }
  if (kWide > kNarrow && c + kNarrow <= channels) {
    gather<Narrow, 1>(blocks, points, value + c, stride, out + c);
    c += kNarrow;
  }
  for (; c < channels; ++c) {
    gather<T, 1>(blocks, points, value + c, stride, out + c);
  }
}

// Queries [begin, end) of all images together.
template <typename T, typename Value>
DDL_TARGET void forward(const ForwardArgs<T, Value>& a, int64_t begin, int64_t end) {
  const int64_t stride = a.heads * a.channels;
  const int64_t num_blocks = static_cast<int64_t>(a.levels.size());
  std::vector<ForwardPoints<T>> blocks(num_blocks);
  Tail<T> tail;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t image = item / a.queries;
    const int64_t rank = item - image * a.queries;
    const int64_t query = image * a.queries + (a.order ? a.order[rank] : rank);
    const Value* value = a.value + image * a.pixels * stride;
    for (int64_t head = 0; head < a.heads; ++head) {
      const int64_t row = query * a.heads + head;
      for (int64_t b = 0; b < num_blocks; ++b) {
        const int64_t first = row * a.points + b * kBlock;
        const T* location = a.location + 2 * first;
        const T* weight = a.weight + first;
        if (first + kBlock > a.total_points) {
          tail.copy(location, weight, a.total_points - first);
          location = tail.location;
          weight = tail.weight;
        }
        set_up(blocks[b], a.levels[b], location, weight);
      }
      gather_head(
          blocks.data(), a.points, value + head * a.channels, stride, a.channels, a.out + row * a.channels);
    }
  }
}

// ---- backward

// The sums of four vectors.
template <typename T>
DDL_INLINE void sum_lanes(const T (&v)[4], T (&out)[4]) {
  for (int k = 0; k < 4; ++k) {
    out[k] = v[k];
  }
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define DDL_HAS_SHUFFLE
#endif
#endif

template <typename V, typename T>
DDL_INLINE void sum_lanes(const V (&v)[4], T (&out)[4]) {
  constexpr int kLanes = sizeof(V) / sizeof(T);
#ifdef DDL_HAS_SHUFFLE
  if constexpr (kLanes == 16) {
    using Half = typename Vector<T, sizeof(V) / 2>::type;
    Half half[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      half[k] = __builtin_shufflevector(v[k], v[k], 0, 1, 2, 3, 4, 5, 6, 7) +
                __builtin_shufflevector(v[k], v[k], 8, 9, 10, 11, 12, 13, 14, 15);
    }
    sum_lanes(half, out);
    return;
  } else if constexpr (kLanes == 8) {
    using Half = typename Vector<T, sizeof(V) / 2>::type;
    Half half[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      half[k] = __builtin_shufflevector(v[k], v[k], 0, 1, 2, 3) + __builtin_shufflevector(v[k], v[k], 4, 5, 6, 7);
    }
    sum_lanes(half, out);
    return;
  } else if constexpr (kLanes == 4) {
    const V a = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5) + __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7);
    const V b = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5) + __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
    const V sum = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
    __builtin_memcpy(out, &sum, sizeof(out));
    return;
  }
#endif
  for (int k = 0; k < 4; ++k) {
    T sum = v[k][0];
    for (int lane = 1; lane < kLanes; ++lane) {
      sum += v[k][lane];
    }
    out[k] = sum;
  }
}

// Points [0, count) of one block and kVectors vectors of channels: adds to the value gradient and to `dot`.
template <typename V, int kVectors, typename T>
DDL_INLINE void scatter(
    const ForwardPoints<T>& block, int count, const T* value, T* grad_value, int64_t stride, const T* grad_out,
    T (*dot)[4]) {
  constexpr int kLanes = sizeof(V) / sizeof(T);
  V grad[kVectors];
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j) {
    load(grad_out + j * kLanes, grad[j]);
  }
  for (int i = 0; i < count; ++i) {
    if (!block.used[i]) {
      continue;
    }
    V products[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      const int64_t offset = block.pixel[k][i] * stride;
      const T w = block.weight[k][i];
      V v;
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) {
        load(value + offset + j * kLanes, v);
        if (j == 0) {
          products[k] = v * grad[j];
        } else {
          products[k] += v * grad[j];
        }
        load(grad_value + offset + j * kLanes, v);
        v += w * grad[j];
        store(grad_value + offset + j * kLanes, v);
      }
    }
    T sums[4];
    sum_lanes(products, sums);
    for (int k = 0; k < 4; ++k) {
      dot[i][k] += sums[k];
    }
  }
}

template <typename T>
DDL_INLINE void scatter_head(
    const ForwardPoints<T>& block, int count, const T* value, T* grad_value, int64_t stride, int64_t channels,
    const T* grad_out, T (*dot)[4]) {
  using Wide = typename Vector<T, DDL_VECTOR_BYTES>::type;
  using Narrow = typename Vector<T, 16>::type;
  constexpr int64_t kWide = sizeof(Wide) / sizeof(T);
  constexpr int64_t kNarrow = sizeof(Narrow) / sizeof(T);
  int64_t c = 0;
  for (; c + 4 * kWide <= channels; c += 4 * kWide) {
    scatter<Wide, 4>(block, count, value + c, grad_value + c, stride, grad_out + c, dot);
  }
  if (c + 2 * kWide <= channels) {
    scatter<Wide, 2>(block, count, value + c, grad_value + c, stride, grad_out + c, dot);
    c += 2 * kWide;
  }
  if (c + kWide <= channels) {
    scatter<Wide, 1>(block, count, value + c, grad_value + c, stride, grad_out + c, dot);
    c += kWide;
  }
  for (; kWide > kNarrow && c + kNarrow <= channels; c += kNarrow) {
    scatter<Narrow, 1>(block, count, value + c, grad_value + c, stride, grad_out + c, dot);
  }
  for (; c < channels; ++c) {
    scatter<T, 1>(block, count, value + c, grad_value + c, stride, grad_out + c, dot);
  }
}

// The gradients of the locations and weights of one block, all points at once.
template <typename T>
DDL_INLINE void finish(
    const LevelOfPoint& levels, const T* __restrict__ location, const T* __restrict__ weight, const T (*dot)[4],
    int count, T* __restrict__ grad_location, T* __restrict__ grad_weight) {
  T by_location[2 * kBlock];
  T by_weight[kBlock];
  for (int i = 0; i < kBlock; ++i) {
    const SamplingPoint<T> p = sampling_point<T>(
        location[2 * i], location[2 * i + 1], levels.height[i], levels.width[i], levels.start[i]);
    const PointGradient<T> grad = point_gradient<T>(
        p, weight[i], dot[i][0], dot[i][1], dot[i][2], dot[i][3], levels.height[i], levels.width[i]);
    by_location[2 * i] = grad.x;
    by_location[2 * i + 1] = grad.y;
    by_weight[i] = grad.weight;
  }
  for (int i = 0; i < 2 * count; ++i) {
    grad_location[i] = by_location[i];
  }
  for (int i = 0; i < count; ++i) {
    grad_weight[i] = by_weight[i];
  }
}

// Heads [begin, end) of all images together. A head of an image belongs to one thread, and its queries are visited in
// one order, so that the sums are the same for any number of threads.
template <typename T>
DDL_TARGET void backward(const BackwardArgs<T>& a, int64_t begin, int64_t end) {
  const int64_t stride = a.heads * a.channels;
  const int64_t num_blocks = static_cast<int64_t>(a.levels.size());
  ForwardPoints<T> block;
  Tail<T> tail;
  while (begin < end) {
    const int64_t image = begin / a.heads;
    const int64_t first_head = begin - image * a.heads;
    const int64_t last_head = end - image * a.heads < a.heads ? end - image * a.heads : a.heads;
    const T* value = a.value + image * a.pixels * stride;
    T* grad_value = a.grad_value + image * a.pixels * stride;
    for (int64_t rank = 0; rank < a.queries; ++rank) {
      const int64_t query = image * a.queries + (a.order ? a.order[rank] : rank);
      for (int64_t head = first_head; head < last_head; ++head) {
        const int64_t row = query * a.heads + head;
        for (int64_t b = 0; b < num_blocks; ++b) {
          const int64_t first = row * a.points + b * kBlock;
          const int64_t left = a.points - b * kBlock;
          const int count = static_cast<int>(left < kBlock ? left : kBlock);
          const T* location = a.location + 2 * first;
          const T* weight = a.weight + first;
          if (first + kBlock > a.total_points) {
            tail.copy(location, weight, a.total_points - first);
            location = tail.location;
            weight = tail.weight;
          }
          set_up(block, a.levels[b], location, weight);
          alignas(64) T dot[kBlock][4] = {};
          scatter_head(
              block, count, value + head * a.channels, grad_value + head * a.channels, stride, a.channels,
              a.grad_out + row * a.channels, dot);
          finish(a.levels[b], location, weight, dot, count, a.grad_location + 2 * first, a.grad_weight + first);
        }
      }
    }
    begin = (image + 1) * a.heads;
  }
}

#undef DDL_INLINE
#undef DDL_HAS_SHUFFLE

}  // namespace DDL_ISA
}  // namespace ddl_d2
