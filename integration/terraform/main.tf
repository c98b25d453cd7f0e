# A function with everything that belongs to it. Raising the generation from 1 to 2 changes the code and nearly every
# setting, all of which Terraform must be able to do in place.

terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

variable "endpoint" {
  type = string
}

variable "generation" {
  type    = number
  default = 1
}

locals {
  package = "orders-${var.generation}.zip"
  first   = var.generation == 1
}

provider "aws" {
  region                      = "us-east-1"
  access_key                  = "123456789012" # twelve digits are taken as the account
  secret_key                  = "any"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true

  endpoints {
    lambda = var.endpoint
  }
}

resource "aws_lambda_code_signing_config" "ours" {
  description = "Generation ${var.generation}"

  allowed_publishers {
    signing_profile_version_arns = ["arn:aws:signer:us-east-1:123456789012:/signing-profiles/ours/1234567890"]
  }

  policies {
    untrusted_artifact_on_deployment = "Warn"
  }
}

resource "aws_lambda_layer_version" "shared" {
  layer_name          = "shared"
  description         = "What several functions use"
  filename            = "shared.zip"
  source_code_hash    = filebase64sha256("shared.zip")
  compatible_runtimes = ["python3.12", "python3.13"]
}

resource "aws_lambda_layer_version_permission" "shared" {
  layer_name     = aws_lambda_layer_version.shared.layer_name
  version_number = aws_lambda_layer_version.shared.version
  statement_id   = "other-account"
  action         = "lambda:GetLayerVersion"
  principal      = "111122223333"
}

resource "aws_lambda_function" "orders" {
  function_name                  = "orders"
  description                    = "Generation ${var.generation}"
  role                           = "arn:aws:iam::123456789012:role/any"
  runtime                        = "python3.12"
  handler                        = "orders.handler"
  filename                       = local.package
  source_code_hash               = filebase64sha256(local.package)
  publish                        = true
  layers                         = [aws_lambda_layer_version.shared.arn]
  code_signing_config_arn        = aws_lambda_code_signing_config.ours.arn
  memory_size                    = 128 * var.generation
  timeout                        = 10 * var.generation
  reserved_concurrent_executions = 5 * var.generation
  kms_key_arn                    = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"

  environment {
    variables = { GENERATION = var.generation }
  }

  dead_letter_config {
    target_arn = "arn:aws:sqs:us-east-1:123456789012:dead-${var.generation}"
  }

  ephemeral_storage {
    size = 512 * var.generation
  }

  # With publish, the provider takes levels that are not written down for changes, on AWS too.
  logging_config {
    log_format            = local.first ? "Text" : "JSON"
    application_log_level = local.first ? null : "WARN"
    system_log_level      = local.first ? null : "INFO"
  }

  tracing_config {
    mode = local.first ? "PassThrough" : "Active"
  }

  vpc_config {
    subnet_ids         = ["subnet-1234567890abcdef0"]
    security_group_ids = ["sg-1234567890abcdef0"]
  }

  tags = { generation = var.generation, (local.first ? "first" : "second") = "" }
}

resource "aws_lambda_alias" "live" {
  name             = "live"
  description      = "Generation ${var.generation}"
  function_name    = aws_lambda_function.orders.function_name
  function_version = aws_lambda_function.orders.version
}

resource "aws_lambda_provisioned_concurrency_config" "live" {
  function_name                     = aws_lambda_alias.live.function_name
  qualifier                         = aws_lambda_alias.live.name
  provisioned_concurrent_executions = var.generation
}

resource "aws_lambda_alias" "canary" {
  name             = "canary"
  function_name    = aws_lambda_function.orders.function_name
  function_version = aws_lambda_function.orders.version

  dynamic "routing_config" {
    for_each = local.first ? [] : [0.25]
    content {
      additional_version_weights = { "1" = routing_config.value }
    }
  }
}

resource "aws_lambda_permission" "bucket" {
  statement_id   = "bucket"
  action         = "lambda:InvokeFunction"
  function_name  = aws_lambda_function.orders.function_name
  qualifier      = aws_lambda_alias.live.name
  principal      = "s3.amazonaws.com"
  source_arn     = "arn:aws:s3:::uploads"
  source_account = "123456789012"
}

resource "aws_lambda_permission" "account" {
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.orders.arn
  principal     = "arn:aws:iam::111122223333:root"
}

resource "aws_lambda_function_url" "live" {
  function_name      = aws_lambda_function.orders.function_name
  qualifier          = aws_lambda_alias.live.name
  authorization_type = local.first ? "AWS_IAM" : "NONE"
  invoke_mode        = local.first ? "BUFFERED" : "RESPONSE_STREAM"

  cors {
    allow_origins = ["https://shop.example"]
    allow_methods = ["GET", "POST"]
    max_age       = 60 * var.generation
  }
}

resource "aws_lambda_function_event_invoke_config" "live" {
  function_name                = aws_lambda_function.orders.function_name
  qualifier                    = aws_lambda_alias.live.name
  maximum_event_age_in_seconds = 60 * var.generation
  maximum_retry_attempts       = local.first ? 0 : 1

  destination_config {
    on_failure {
      destination = "arn:aws:sqs:us-east-1:123456789012:failed-${var.generation}"
    }
  }
}

resource "aws_lambda_event_source_mapping" "queue" {
  event_source_arn        = "arn:aws:sqs:us-east-1:123456789012:orders"
  function_name           = aws_lambda_alias.live.arn
  batch_size              = 5 * var.generation
  enabled                 = local.first
  function_response_types = ["ReportBatchItemFailures"]

  scaling_config {
    maximum_concurrency = 2 * var.generation
  }

  filter_criteria {
    filter {
      pattern = jsonencode({ body = { generation = [var.generation] } })
    }
  }
}

resource "aws_lambda_event_source_mapping" "stream" {
  event_source_arn                   = "arn:aws:kinesis:us-east-1:123456789012:stream/clicks"
  function_name                      = aws_lambda_function.orders.arn
  starting_position                  = "TRIM_HORIZON"
  maximum_batching_window_in_seconds = var.generation
  parallelization_factor             = var.generation
  bisect_batch_on_function_error     = local.first

  destination_config {
    on_failure {
      destination_arn = "arn:aws:sqs:us-east-1:123456789012:failed-${var.generation}"
    }
  }
}

resource "aws_lambda_runtime_management_config" "orders" {
  function_name     = aws_lambda_function.orders.function_name
  update_runtime_on = local.first ? "FunctionUpdate" : "Auto"
}

resource "aws_lambda_function_recursion_config" "orders" {
  function_name  = aws_lambda_function.orders.function_name
  recursive_loop = local.first ? "Allow" : "Terminate"
}

resource "aws_lambda_invocation" "order" {
  function_name   = aws_lambda_function.orders.function_name
  input           = jsonencode({ generation = var.generation })
  lifecycle_scope = "CRUD"
}

data "aws_lambda_function" "live" {
  function_name = aws_lambda_function.orders.function_name
  qualifier     = aws_lambda_alias.live.name
}

data "aws_lambda_layer_version" "shared" {
  layer_name = aws_lambda_layer_version.shared.layer_name
}

data "aws_lambda_code_signing_config" "ours" {
  arn = aws_lambda_code_signing_config.ours.arn
}

data "aws_lambda_alias" "live" {
  function_name = aws_lambda_function.orders.function_name
  name          = aws_lambda_alias.live.name
}

data "aws_lambda_function_url" "live" {
  function_name = aws_lambda_function.orders.function_name
  qualifier     = aws_lambda_function_url.live.qualifier
}

data "aws_lambda_functions" "all" {
  depends_on = [aws_lambda_function.orders]
}

output "read" {
  value = {
    alias     = data.aws_lambda_alias.live.function_version
    functions = data.aws_lambda_functions.all.function_names
    result    = jsondecode(aws_lambda_invocation.order.result)
    url       = data.aws_lambda_function_url.live.authorization_type
  }
}

output "version" {
  value = data.aws_lambda_function.live.version
}
