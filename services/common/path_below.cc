#include "services/common/path_below.h"

#include <filesystem>
#include <system_error>

namespace onegrid::common {

namespace fs = std::filesystem;

std::optional<std::string> PathBelow(const std::string& folder,
                                     const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    return std::nullopt;
  }
  std::error_code error;
  const fs::path root = fs::canonical(folder, error);
  if (error) return std::nullopt;
  const fs::path full = fs::weakly_canonical(root / path, error);
  if (error) return std::nullopt;
  const fs::path relative = full.lexically_relative(root);
  if (relative.empty() || *relative.begin() == ".." || relative == ".") {
    return std::nullopt;
  }
  return full.string();
}

}  // namespace onegrid::common
