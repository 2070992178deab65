import boto3, redis
def test_a(environment, redis_url, key_prefix):
    assert redis.Redis.from_url(redis_url).ping()
    c=boto3.client("s3",endpoint_url=environment["MASKQ_S3_ENDPOINT_URL"]); c.put_object(Bucket="maskq-test",Key=key_prefix+"/x",Body=b"")
