package config

import (
	"strings"
	"testing"
)

func TestS3(t *testing.T) {
	f := func(change func(c *Config), want ...string) {
		t.Helper()
		c := changed(func(c *Config) { c.Data = t.TempDir(); change(c) })
		err := c.Check()
		if len(want) == 0 {
			if err != nil {
				t.Errorf("refused: %s", err)
			}
			return
		}
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("error %v, want %q", err, w)
			}
		}
		if err != nil && strings.Contains(err.Error(), "a secret") {
			t.Errorf("the error holds the secret: %s", err)
		}
	}
	good := func(c *Config) {
		c.S3URL, c.S3AccessKey, c.S3SecretKey = "https://s3.example/bucket/prefix", "id", NewSecret("a secret")
	}
	f(good)
	f(func(c *Config) { good(c); c.S3URL = "http://127.0.0.1:7070/bucket" })
	f(func(c *Config) { good(c); c.S3Redirect = true })
	for _, url := range []string{"s3.example/bucket", "https://s3.example", "https://s3.example/", "https://id:a secret@s3.example/bucket", "s3://bucket", "https://s3.example/b?x=1"} {
		f(func(c *Config) { good(c); c.S3URL = url }, "s3_url")
	}
	f(func(c *Config) { good(c); c.S3AccessKey = "" }, "s3_access_key")
	f(func(c *Config) { good(c); c.S3SecretKey = Secret{} }, "s3_access_key")
	f(func(c *Config) { good(c); c.S3Region = "" }, "s3_region")
	f(func(c *Config) { good(c); c.S3URL = "" }, "s3_url")
	f(func(c *Config) { c.S3Redirect = true }, "s3_url")
	f(func(c *Config) { c.Knowledge.CompanyTransfers = c.Knowledge.Transfers + 1 }, "knowledge.transfers")
	f(func(c *Config) { c.Knowledge.FileBytes, c.Knowledge.CompanyBytes = 2*MiB, MiB }, "knowledge.company_bytes")
}
