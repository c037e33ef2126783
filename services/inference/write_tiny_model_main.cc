// Writes the model of random weights that tests serve, for tests that are not
// in C++.
#include <cstdio>
#include <string>

#include "services/inference/tiny_model.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FILE.gguf\n", argv[0]);
    return 2;
  }
  const auto status = onegrid::inference::WriteTinyModel(argv[1]);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return 1;
}
