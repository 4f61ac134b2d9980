// Multi-scale deformable attention (Zhu et al., "Deformable DETR", arXiv 2010.04159, eq. 3): what the CPU and the CUDA
// kernels share. The arithmetic of one sampling point lives here and nowhere else.
//
// Shape legend: N images, S pixels of all levels, H heads, D channels of a head, Q queries, L levels, P points.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define DDL_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DDL_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace ddl_d2 {

// One pyramid level inside the flattened value: `height * width` pixels from pixel `start` on.
struct Level {
  int32_t height, width, start;
};

// Where a sampling point lies in its level. Corner order: (top, left), (top, right), (bottom, left), (bottom, right).
//
// `pixel` always names pixels of the level, so reading it is safe whatever the location was (far outside, infinite,
// NaN): a corner outside the level is moved to the nearest corner inside, and its weight is 0. A corner moved so is
// another corner of the same point, so that no pixel is read that the bilinear formula does not read.
template <typename T>
struct SamplingPoint {
  int32_t pixel[4];
  T left, right, top, bottom;  // bilinear weights per axis, 0 on a side that is outside
  T dleft, dright, dtop, dbottom;  // their derivatives by the pixel coordinate: -1, +1, or 0 on a side that is outside
  int32_t inside;  // 0: no corner is inside (or the location is NaN); all the above weights are 0
};

// `x`, `y` in [0, 1] over the level. Pixel centers are at (i + 0.5) / size, as in grid_sample(align_corners=False).
// Conditions are integers to calculate with, and values are clamped instead of chosen: compilers then see no branch and
// vectorise the function over points.
template <typename T>
DDL_HOST_DEVICE SamplingPoint<T> sampling_point(T x, T y, int32_t height, int32_t width, int32_t start) {
  const T low = static_cast<T>(-1);
  const T high_x = static_cast<T>(width);
  const T high_y = static_cast<T>(height);
  T px = x * high_x - static_cast<T>(0.5);
  T py = y * high_y - static_cast<T>(0.5);
  // Written so that NaN is not inside, and is clamped to -1.
  const int32_t inside = static_cast<int32_t>(px > low) & static_cast<int32_t>(px < high_x) &
                         static_cast<int32_t>(py > low) & static_cast<int32_t>(py < high_y);
  px = px > low ? px : low;
  py = py > low ? py : low;
  px = px < high_x ? px : high_x;
  py = py < high_y ? py : high_y;

  // floor()
  int32_t x0 = static_cast<int32_t>(px);
  int32_t y0 = static_cast<int32_t>(py);
  x0 -= static_cast<int32_t>(px < static_cast<T>(x0));
  y0 -= static_cast<int32_t>(py < static_cast<T>(y0));
  const T fx = px - static_cast<T>(x0);
  const T fy = py - static_cast<T>(y0);

  const T has_left = static_cast<T>(inside & static_cast<int32_t>(x0 >= 0));
  const T has_right = static_cast<T>(inside & static_cast<int32_t>(x0 < width - 1));
  const T has_top = static_cast<T>(inside & static_cast<int32_t>(y0 >= 0));
  const T has_bottom = static_cast<T>(inside & static_cast<int32_t>(y0 < height - 1));

  // x0 is in [-1, width], or beyond where T cannot represent the width: clamped at both ends, it cannot leave the level.
  int32_t xl = x0 > 0 ? x0 : 0;
  int32_t yt = y0 > 0 ? y0 : 0;
  xl = xl < width - 1 ? xl : width - 1;
  yt = yt < height - 1 ? yt : height - 1;
  const int32_t xr = x0 < width - 1 ? x0 + 1 : width - 1;
  const int32_t yb = y0 < height - 1 ? y0 + 1 : height - 1;

  SamplingPoint<T> point;
  point.pixel[0] = start + yt * width + xl;
  point.pixel[1] = start + yt * width + xr;
  point.pixel[2] = start + yb * width + xl;
  point.pixel[3] = start + yb * width + xr;
  point.left = (static_cast<T>(1) - fx) * has_left;
  point.right = fx * has_right;
  point.top = (static_cast<T>(1) - fy) * has_top;
  point.bottom = fy * has_bottom;
  point.dleft = -has_left;
  point.dright = has_right;
  point.dtop = -has_top;
  point.dbottom = has_bottom;
  point.inside = inside;
  return point;
}

// A point outside adds nothing and is skipped, unless its attention weight is Inf or NaN: 0 * NaN is NaN, and a
// diverged network must not be hidden. (`weight - weight` is 0 exactly for finite weights.)
template <typename T>
DDL_HOST_DEVICE int32_t contributes(int32_t inside, T weight) {
  return inside | static_cast<int32_t>(!(weight - weight == static_cast<T>(0)));
}

// Gradients of one point from `dot`, the inner products of the output gradient with the four corner pixels.
template <typename T>
struct PointGradient {
  T x, y, weight;  // by the normalized location and by the attention weight
};

template <typename T>
DDL_HOST_DEVICE PointGradient<T> point_gradient(
    const SamplingPoint<T>& p, T weight, T dot0, T dot1, T dot2, T dot3, int32_t height, int32_t width) {
  PointGradient<T> grad;
  grad.weight = p.top * (p.left * dot0 + p.right * dot1) + p.bottom * (p.left * dot2 + p.right * dot3);
  grad.x = weight * static_cast<T>(width) *
           (p.top * (p.dleft * dot0 + p.dright * dot1) + p.bottom * (p.dleft * dot2 + p.dright * dot3));
  grad.y = weight * static_cast<T>(height) *
           (p.left * (p.dtop * dot0 + p.dbottom * dot2) + p.right * (p.dtop * dot1 + p.dbottom * dot3));
  return grad;
}

}  // namespace ddl_d2
