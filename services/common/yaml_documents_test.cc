// Tests of texts of several YAML documents.
#include "services/common/yaml_documents.h"

#include "gtest/gtest.h"
#include "yaml-cpp/exceptions.h"

namespace onegrid::common {
namespace {

TEST(YamlDocumentsTest, OneDocumentOrNoneHasNoMore) {
  for (const char* text : {"", "# nothing\n", "a: 1\n", "---\na: 1\n",
                           "a: 1\n...\n", "[1, 2]", "a: |\n  ---x\n"}) {
    EXPECT_FALSE(HasMoreYamlDocuments(text)) << text;
  }
}

TEST(YamlDocumentsTest, ASecondDocumentIsSeen) {
  for (const char* text :
       {"a: 1\n---\nb: 2\n", "---\n---\n", "a: 1\n...\n---\nb: 2\n"}) {
    EXPECT_TRUE(HasMoreYamlDocuments(text)) << text;
  }
}

TEST(YamlDocumentsTest, WhatIsNoYamlThrows) {
  EXPECT_THROW(HasMoreYamlDocuments("a: [1"), YAML::ParserException);
}

}  // namespace
}  // namespace onegrid::common
