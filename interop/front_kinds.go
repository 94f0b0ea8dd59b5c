package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// nginxStream is where Debian's libnginx-mod-stream puts its module, below NGINX_MODULES
// where that is set.
func nginxStream() string {
	dir := os.Getenv("NGINX_MODULES")
	if dir == "" {
		dir = "/usr/lib/nginx/modules"
	}
	return filepath.Join(dir, "ngx_stream_module.so")
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// The programs of the balancers.
const (
	frontHAProxy = "haproxy"
	frontNginx   = "nginx"
)

// fronts are the balancers, with what docs/deployment.md tells to set.
func fronts() []front {
	haproxy := func(dir string) []string { return []string{"-db", "-f", filepath.Join(dir, "front.conf")} }
	nginx := func(dir string) []string {
		return []string{"-p", dir, "-e", "stderr", "-c", filepath.Join(dir, "front.conf")}
	}
	return []front{
		{name: "haproxy tcp", program: frontHAProxy, args: haproxy, config: haproxyTCP("")},
		{name: "haproxy send-proxy", program: frontHAProxy, args: haproxy, proxy: true, config: haproxyTCP("send-proxy")},
		{name: "haproxy send-proxy-v2", program: frontHAProxy, args: haproxy, proxy: true, config: haproxyTCP("send-proxy-v2")},
		{name: "haproxy http", program: frontHAProxy, args: haproxy, ends: true, config: haproxyHTTP},
		{name: "nginx stream", program: frontNginx, args: nginx, module: nginxStream(), config: nginxTCP("")},
		{
			name: "nginx stream, proxy", program: frontNginx, args: nginx, module: nginxStream(), proxy: true,
			config: nginxTCP("proxy_protocol on;"),
		},
		{name: "nginx grpc_pass", program: frontNginx, args: nginx, ends: true, config: nginxHTTP},
	}
}

func haproxyTCP(option string) func(dir, to string, s *scene) string {
	return func(_, to string, s *scene) string {
		return fmt.Sprintf(`defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen front
  bind %s
  server host %s %s
`, s.front, to, option)
	}
}

func haproxyHTTP(dir, to string, s *scene) string {
	return fmt.Sprintf(`defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen front
  bind %s ssl crt %s alpn h2
  server host %s ssl verify required ca-file %s verifyhost localhost sni str(localhost) alpn h2
`, s.front, filepath.Join(dir, "front.pem"), to, filepath.Join(dir, "ca.crt"))
}

// nginxMain is what both ways of nginx begin with: one process that stays in front.
const nginxMain = `daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {}
`

func nginxTCP(option string) func(dir, to string, s *scene) string {
	return func(_, to string, s *scene) string {
		return fmt.Sprintf(`load_module %s;
%sstream {
  server { listen %s; proxy_pass %s; proxy_timeout 1h; %s }
}
`, nginxStream(), nginxMain, s.front, to, option)
	}
}

func nginxHTTP(dir, to string, s *scene) string {
	return fmt.Sprintf(`%[1]shttp {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {
    listen %[2]s ssl http2;
    ssl_certificate %[3]s/tls.crt;
    ssl_certificate_key %[3]s/tls.key;
    ssl_protocols TLSv1.3;
    client_max_body_size 0;
    location / {
      grpc_pass grpcs://%[4]s;
      grpc_ssl_protocols TLSv1.3;
      grpc_ssl_verify on;
      grpc_ssl_trusted_certificate %[3]s/ca.crt;
      grpc_ssl_name localhost;
      grpc_read_timeout 1h;
      grpc_send_timeout 1h;
    }
  }
}
`, nginxMain, s.front, dir, to)
}
