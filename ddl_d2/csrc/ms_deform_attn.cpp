// Binding of ddl_d2::ms_deform_attn: schemas, validation, dispatch to the device.
#include <ATen/ATen.h>
#include <Python.h>
#include <torch/library.h>

#include <limits>
#include <optional>
#include <string>
#include <tuple>

namespace ddl_d2 {

std::string cpu_capability(std::optional<std::string> force);

#define DDL_FORWARD_ARGS                                                                                         \
  const at::Tensor &value, const at::Tensor &spatial_shapes, const at::Tensor &level_start_index,                \
      const at::Tensor &sampling_locations, const at::Tensor &attention_weights
#define DDL_FORWARD_NAMES value, spatial_shapes, level_start_index, sampling_locations, attention_weights

using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

at::Tensor ms_deform_attn_cpu(DDL_FORWARD_ARGS);
Gradients ms_deform_attn_backward_cpu(const at::Tensor& grad_output, DDL_FORWARD_ARGS);
#ifdef DDL_WITH_CUDA
at::Tensor ms_deform_attn_cuda(DDL_FORWARD_ARGS);
Gradients ms_deform_attn_backward_cuda(const at::Tensor& grad_output, DDL_FORWARD_ARGS);
#endif

namespace {

constexpr const char* kLegend =
    " (value [N, S, H, D], spatial_shapes [L, 2], level_start_index [L], sampling_locations [N, Q, H, L, P, 2], "
    "attention_weights [N, Q, H, L, P])";

void check_shapes(DDL_FORWARD_ARGS) {
  TORCH_CHECK(value.dim() == 4, "ms_deform_attn: value must have 4 axes, got shape ", value.sizes(), kLegend);
  TORCH_CHECK(
      sampling_locations.dim() == 6 && sampling_locations.size(5) == 2,
      "ms_deform_attn: sampling_locations must have 6 axes, the last of size 2, got shape ",
      sampling_locations.sizes(), kLegend);
  TORCH_CHECK(
      attention_weights.dim() == 5 && attention_weights.sizes() == sampling_locations.sizes().slice(0, 5),
      "ms_deform_attn: attention_weights must have the first 5 axes of sampling_locations, got shapes ",
      attention_weights.sizes(), " and ", sampling_locations.sizes(), kLegend);
  TORCH_CHECK(
      value.size(0) == sampling_locations.size(0) && value.size(2) == sampling_locations.size(2),
      "ms_deform_attn: value and sampling_locations must have the same N and H, got shapes ", value.sizes(), " and ",
      sampling_locations.sizes(), kLegend);
  TORCH_CHECK(
      spatial_shapes.dim() == 2 && spatial_shapes.size(0) == sampling_locations.size(3) && spatial_shapes.size(1) == 2,
      "ms_deform_attn: spatial_shapes must be [L, 2] with the L of sampling_locations, got shapes ",
      spatial_shapes.sizes(), " and ", sampling_locations.sizes(), kLegend);
  TORCH_CHECK(
      level_start_index.dim() == 1 && level_start_index.size(0) == spatial_shapes.size(0),
      "ms_deform_attn: level_start_index must be [L], got shape ", level_start_index.sizes(), " for ",
      spatial_shapes.size(0), " levels", kLegend);
  TORCH_CHECK(
      value.size(1) <= std::numeric_limits<int32_t>::max(), "ms_deform_attn: ", value.size(1),
      " pixels in one image, at most 2^31 - 1 are supported");
}

void check_types(DDL_FORWARD_ARGS) {
  TORCH_CHECK(
      spatial_shapes.scalar_type() == at::kLong && level_start_index.scalar_type() == at::kLong,
      "ms_deform_attn: spatial_shapes and level_start_index must be int64, got ", spatial_shapes.scalar_type(), " and ",
      level_start_index.scalar_type());
  const at::ScalarType type = value.scalar_type();
  const bool is_16_bit = type == at::kHalf || type == at::kBFloat16;
  TORCH_CHECK(
      type == at::kFloat || type == at::kDouble || is_16_bit,
      "ms_deform_attn: value must be float32, float64, float16 or bfloat16, got ", type);
  const at::ScalarType point_type = sampling_locations.scalar_type();
  TORCH_CHECK(
      point_type == attention_weights.scalar_type() && (point_type == type || (is_16_bit && point_type == at::kFloat)),
      "ms_deform_attn: sampling_locations and attention_weights must both have the dtype of value (or float32 for a "
      "16-bit value), got value ",
      type, ", sampling_locations ", point_type, ", attention_weights ", attention_weights.scalar_type());
  TORCH_CHECK(
      sampling_locations.device() == value.device() && attention_weights.device() == value.device(),
      "ms_deform_attn: value, sampling_locations and attention_weights must be on one device, got ", value.device(),
      ", ", sampling_locations.device(), ", ", attention_weights.device());
}

// Reads the levels: only for tensors on the CPU (reading them from a GPU would stop it; the CUDA kernel checks there).
void check_levels(const at::Tensor& value, const at::Tensor& spatial_shapes, const at::Tensor& level_start_index) {
  const at::Tensor shapes = spatial_shapes.contiguous();
  const at::Tensor starts = level_start_index.contiguous();
  const int64_t* shape = shapes.const_data_ptr<int64_t>();
  const int64_t* start = starts.const_data_ptr<int64_t>();
  int64_t total = 0;
  for (int64_t l = 0; l < starts.numel(); ++l) {
    const int64_t height = shape[2 * l];
    const int64_t width = shape[2 * l + 1];
    TORCH_CHECK(
        height > 0 && width > 0 && height <= value.size(1) && width <= value.size(1) / height,
        "ms_deform_attn: level ", l, " of spatial_shapes is ", height, " x ", width, ", which does not fit into the ",
        value.size(1), " pixels of value");
    TORCH_CHECK(
        start[l] == total, "ms_deform_attn: level_start_index[", l, "] is ", start[l], ", the levels before it have ",
        total, " pixels");
    total += height * width;
  }
  TORCH_CHECK(
      total == value.size(1), "ms_deform_attn: the levels of spatial_shapes have ", total, " pixels together, value has ",
      value.size(1));
}

void check_all(DDL_FORWARD_ARGS) {
  check_shapes(DDL_FORWARD_NAMES);
  check_types(DDL_FORWARD_NAMES);
  TORCH_CHECK(
      spatial_shapes.device() == level_start_index.device() &&
          (spatial_shapes.is_cpu() || spatial_shapes.device() == value.device()),
      "ms_deform_attn: spatial_shapes and level_start_index must both be on the CPU or on the device of value, got ",
      spatial_shapes.device(), ", ", level_start_index.device(), " and value on ", value.device());
  if (spatial_shapes.is_cpu()) {
    check_levels(value, spatial_shapes, level_start_index);
  }
}

void check_grad(const at::Tensor& grad, const at::Tensor& value, const at::Tensor& sampling_locations) {
  TORCH_CHECK(
      grad.dim() == 3 && grad.size(0) == value.size(0) && grad.size(1) == sampling_locations.size(1) &&
          grad.size(2) == value.size(2) * value.size(3),
      "ms_deform_attn_backward: grad_output must be [N, Q, H * D], got shape ", grad.sizes(), " for value ",
      value.sizes(), " and sampling_locations ", sampling_locations.sizes());
  TORCH_CHECK(
      grad.scalar_type() == value.scalar_type() && grad.device() == value.device(),
      "ms_deform_attn_backward: grad_output must have the dtype and device of value, got ", grad.scalar_type(), " on ",
      grad.device(), " and ", value.scalar_type(), " on ", value.device());
}

template <at::Tensor (*kKernel)(DDL_FORWARD_ARGS)>
at::Tensor checked_forward(DDL_FORWARD_ARGS) {
  check_all(DDL_FORWARD_NAMES);
  return kKernel(DDL_FORWARD_NAMES);
}

template <Gradients (*kKernel)(const at::Tensor& grad_output, DDL_FORWARD_ARGS)>
Gradients checked_backward(const at::Tensor& grad_output, DDL_FORWARD_ARGS) {
  check_all(DDL_FORWARD_NAMES);
  check_grad(grad_output, value, sampling_locations);
  return kKernel(grad_output, DDL_FORWARD_NAMES);
}

// Whether at::parallel_for uses threads here: the compiler was told of OpenMP.
bool cpu_parallel() {
#ifdef _OPENMP
  return true;
#else
  return false;
#endif
}

bool cuda_built() {
#ifdef DDL_WITH_CUDA
  return true;
#else
  return false;
#endif
}

}  // namespace

TORCH_LIBRARY(ddl_d2, m) {
  m.def(
      "ms_deform_attn(Tensor value, Tensor spatial_shapes, Tensor level_start_index, Tensor sampling_locations, "
      "Tensor attention_weights) -> Tensor");
  m.def(
      "ms_deform_attn_backward(Tensor grad_output, Tensor value, Tensor spatial_shapes, Tensor level_start_index, "
      "Tensor sampling_locations, Tensor attention_weights) -> (Tensor, Tensor, Tensor)");
  m.def("_cpu_capability(str? force=None) -> str", &cpu_capability);
  m.def("_cpu_parallel() -> bool", &cpu_parallel);
  m.def("_cuda_built() -> bool", &cuda_built);
}

TORCH_LIBRARY_IMPL(ddl_d2, CPU, m) {
  m.impl("ms_deform_attn", &checked_forward<&ms_deform_attn_cpu>);
  m.impl("ms_deform_attn_backward", &checked_backward<&ms_deform_attn_backward_cpu>);
}

#ifdef DDL_WITH_CUDA
TORCH_LIBRARY_IMPL(ddl_d2, CUDA, m) {
  m.impl("ms_deform_attn", &checked_forward<&ms_deform_attn_cuda>);
  m.impl("ms_deform_attn_backward", &checked_backward<&ms_deform_attn_backward_cuda>);
}
#endif

}  // namespace ddl_d2

// `import ddl_d2._C` loads this library, and loading it registers the operators above.
extern "C" __attribute__((visibility("default"))) PyObject* PyInit__C() {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
