# LocalStack's configuration for code that is run from a folder in place. What is other than there: the provider's
# newer name for path-style addresses, a role that is only named, for nothing here serves IAM, and code that needs no JVM.

variable "endpoint" {
  type = string
}

variable "STAGE" {
  type    = string
  default = "local"
}

variable "AWS_REGION" {
  type    = string
  default = "us-east-1"
}

variable "JAR_PATH" {
  type    = string
  default = "build/libs/localstack-sampleproject-all.jar"
}

variable "LAMBDA_MOUNT_CWD" {
  type = string
}

variable "runtime" {
  type = string
}

provider "aws" {
  access_key                  = "test_access_key"
  secret_key                  = "test_secret_key"
  region                      = var.AWS_REGION
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true

  endpoints {
    apigateway       = var.STAGE == "local" ? var.endpoint : null
    cloudformation   = var.STAGE == "local" ? var.endpoint : null
    cloudwatch       = var.STAGE == "local" ? var.endpoint : null
    cloudwatchevents = var.STAGE == "local" ? var.endpoint : null
    iam              = var.STAGE == "local" ? var.endpoint : null
    lambda           = var.STAGE == "local" ? var.endpoint : null
    s3               = var.STAGE == "local" ? var.endpoint : null
  }
}

resource "aws_lambda_function" "exampleFunctionOne" {
  s3_bucket        = var.STAGE == "local" ? "__local__" : null
  s3_key           = var.STAGE == "local" ? var.LAMBDA_MOUNT_CWD : null
  filename         = var.STAGE == "local" ? null : var.JAR_PATH
  function_name    = "ExampleFunctionOne"
  role             = "arn:aws:iam::000000000000:role/lambda-execution-role"
  handler          = "app.handler"
  runtime          = var.runtime
  timeout          = 30
  source_code_hash = filebase64sha256(var.JAR_PATH)
  environment {
    variables = {
      FUNCTION_NAME = "functionOne"
    }
  }
}
