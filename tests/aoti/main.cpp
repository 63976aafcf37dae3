// Runs an exported model without Python: main LIBRARY PACKAGE INPUT BATCH OUTPUT
//
// LIBRARY holds the operators of lif_cuda, PACKAGE is what AOTInductor wrote, INPUT and OUTPUT are raw
// floats.
#include <ATen/ops/from_blob.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

int main(int count, char** arguments) {
  if (count != 6) {
    std::fprintf(stderr, "usage: %s LIBRARY PACKAGE INPUT BATCH OUTPUT\n", arguments[0]);
    return 2;
  }
  // Loading the library registers its operators with torch, as torch.ops.load_library does in Python.
  if (dlopen(arguments[1], RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  std::ifstream file(arguments[3], std::ios::binary);
  std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  const int64_t batch = std::stoll(arguments[4]);
  const auto values = static_cast<int64_t>(bytes.size() / sizeof(float));
  torch::inductor::AOTIModelPackageLoader model(arguments[2]);
  const auto outputs = model.run({at::from_blob(bytes.data(), {batch, values / batch}, at::kFloat)});
  const at::Tensor out = outputs.at(0).contiguous();
  std::ofstream(arguments[5], std::ios::binary)
      .write(static_cast<const char*>(out.const_data_ptr()), static_cast<std::streamsize>(out.nbytes()));
}
