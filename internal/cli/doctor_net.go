package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/flow"
)

// checkProxy finds out who is connected to first: the provider or a proxy.
func (d *doctor) checkProxy(context.Context) result {
	raw := d.issuer
	if d.endpoints.DeviceAuthorization != "" && d.endpoints.Token != "" {
		raw = d.endpoints.DeviceAuthorization
	}
	var err error
	if d.target, err = url.Parse(raw); err != nil {
		return blocked("%q is no URL", raw) // check has seen to it
	}
	d.proxy, err = http.ProxyFromEnvironment(&http.Request{URL: d.target})
	if err != nil || d.proxy != nil && d.proxy.Hostname() == "" {
		// Without the cause, which quotes the variable: there may be a password in it.
		return found("proxy-wrong", "HTTPS_PROXY=http://HOST:PORT, or unset it", "HTTPS_PROXY is not the URL of a proxy")
	}
	if d.proxy == nil {
		return fine("none: %s is reached directly", d.target.Host)
	}
	return fine("%s is reached through the proxy %s: dns and tcp are of the proxy", d.target.Host, d.proxy.Host)
}

// peer is what is connected to first.
func (d *doctor) peer() *url.URL {
	if d.proxy != nil {
		return d.proxy
	}
	return d.target
}

func address(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func (d *doctor) checkDNS(ctx context.Context) result {
	host := d.peer().Hostname()
	if net.ParseIP(host) != nil {
		return fine("%s is an address: nothing to look up", host)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		fix := "getent hosts " + shellQuote(host) + "\ncheck --oidc-issuer-url, the VPN and /etc/resolv.conf; where names are the proxy's business: HTTPS_PROXY=http://HOST:PORT"
		if d.proxy != nil {
			fix = "check HTTPS_PROXY: getent hosts " + shellQuote(host)
		}
		return found("dns-failed", fix, "%s is not found: %v", host, err)
	}
	return fine("%s is %s", host, strings.Join(addresses, ", "))
}

func (d *doctor) checkTCP(ctx context.Context) result {
	at := address(d.peer())
	var err error
	if d.conn, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", at); err != nil {
		fix := "check the port in --oidc-issuer-url, the firewall and the VPN: curl -v " + shellQuote(d.peer().Scheme+"://"+at)
		if d.proxy != nil {
			fix = "check HTTPS_PROXY, or go around the proxy: NO_PROXY=" + d.target.Hostname()
		}
		return found("tcp-failed", fix, "no connection to %s: %v", at, err)
	}
	_ = d.conn.SetDeadline(time.Now().Add(longest)) // a socket has deadlines
	return fine("connected to %s", d.conn.RemoteAddr())
}

// checkTunnel asks the proxy for a way through (RFC 9110 section 9.3.6).
func (d *doctor) checkTunnel(ctx context.Context) result {
	switch {
	case d.proxy == nil:
		return skipped("no proxy")
	case d.proxy.Scheme != "http" && d.proxy.Scheme != "https":
		d.conn.Close() // the test is at its end
		d.conn = nil
		return skipped("a %s proxy: discovery will tell", d.proxy.Scheme)
	}
	if d.proxy.Scheme == "https" {
		d.conn = tls.Client(d.conn, &tls.Config{ServerName: d.proxy.Hostname(), MinVersion: tls.VersionTLS12})
	}
	at := address(d.target)
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: at}, Host: at, Header: http.Header{}}
	if u := d.proxy.User; u != nil {
		password, _ := u.Password() // none is an empty one
		request.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	var response *http.Response
	err := request.WithContext(ctx).Write(d.conn)
	if err == nil {
		// Nobody speaks TLS before we do: the reader takes nothing of it.
		response, err = http.ReadResponse(bufio.NewReader(d.conn), request)
	}
	around := "NO_PROXY=" + d.target.Hostname() + ", if it can be reached without the proxy"
	if err != nil {
		return found("proxy-refuses", "check HTTPS_PROXY: it must name an HTTP proxy\n"+around, "the proxy %s does not answer: %v", d.proxy.Host, err)
	}
	switch response.StatusCode {
	case http.StatusOK:
		return fine("the proxy connects to %s", at)
	case http.StatusProxyAuthRequired:
		return found("proxy-refuses", "HTTPS_PROXY=http://USER:PASSWORD@"+d.proxy.Host+"\n"+around, "the proxy %s wants a user and a password (HTTP status 407)", d.proxy.Host)
	}
	return found("proxy-refuses", "ask those who run the proxy to allow "+at+"\n"+around, "the proxy %s does not let this through to %s (HTTP status %d)", d.proxy.Host, at, response.StatusCode)
}

// checkTLS shakes hands without verifying, so that there is a chain to show,
// and then verifies as every request does. Nothing is sent on the connection.
func (d *doctor) checkTLS(ctx context.Context) result {
	switch {
	case d.target.Scheme == "http":
		return skipped("http on a loopback address")
	case d.conn == nil:
		return skipped("not reached by a test of its own: discovery will tell")
	}
	host := d.target.Hostname()
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, InsecureSkipVerify: true}
	if transport, ok := d.config.HTTP.Transport.(*http.Transport); ok {
		config.RootCAs = transport.TLSClientConfig.RootCAs
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn := tls.Client(d.conn, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return found("tls-failed", "check the port in --oidc-issuer-url; what answers there: openssl s_client -connect "+shellQuote(address(d.target)), "what answers at %s does not speak TLS 1.2 or later: %v", address(d.target), err)
	}
	chain := conn.ConnectionState().PeerCertificates
	shown := describeChain(chain)
	leaf := chain[0] // TLS has no server without a certificate
	pool := x509.NewCertPool()
	for _, c := range chain[1:] {
		pool.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: config.RootCAs, Intermediates: pool, DNSName: host})
	var invalid x509.CertificateInvalidError
	switch {
	case d.insecureSkipTLSVerify:
		return fine("%s; not verified", shown)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return found("tls-expired", "check this machine's clock: date -u\nif it is right, those who run "+host+" must renew the certificate", "a certificate is out of date: %s: %v", shown, err)
	case errors.As(err, new(x509.HostnameError)):
		return found("tls-other-host", "check --oidc-issuer-url: the certificate is of "+strings.Join(append(leaf.DNSNames, addresses(leaf)...), ", "), "the certificate is not of %s: %s", host, shown)
	case err != nil:
		return found("tls-unknown-authority", "if that authority is yours: --certificate-authority=FILE with the certificate of "+name(chain[len(chain)-1].Issuer.CommonName, chain[len(chain)-1].Issuer.String()),
			"the certificate is of an authority that is not trusted here: %s: %v", shown, err)
	case time.Until(leaf.NotAfter) < min(7*24*time.Hour, leaf.NotAfter.Sub(leaf.NotBefore)/5): // some last for days only
		return found("tls-expires-soon", "those who run "+host+" must renew the certificate", "the certificate ends soon: %s", shown)
	}
	return fine("%s", shown)
}

// describeChain names who signed whom, and when the first ends.
func describeChain(chain []*x509.Certificate) string {
	names := []string{name(chain[0].Subject.CommonName, chain[0].Subject.String())}
	for _, c := range chain {
		names = append(names, name(c.Issuer.CommonName, c.Issuer.String()))
	}
	return fmt.Sprintf("%s, good until %s", strings.Join(names, " ← "), chain[0].NotAfter.UTC().Format(time.DateOnly))
}

func name(common, whole string) string {
	if common != "" {
		return common
	}
	return whole
}

func addresses(c *x509.Certificate) (all []string) {
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}

// apiServer is one, and how to reach it.
type apiServer struct {
	url, caFile, serverName, proxyURL string
	caData                            []byte
	insecure                          bool
	missing                           string // the cluster that the kubeconfig does not have
}

func serverOf(configs *kubeconfigs, cluster string) *apiServer {
	c, ok := configs.clusters[cluster]
	if !ok || c.Server == "" {
		return &apiServer{missing: cluster}
	}
	a := &apiServer{url: c.Server, caFile: c.CertificateAuthority, caData: c.CertificateAuthorityData, serverName: c.TLSServerName, proxyURL: c.ProxyURL, insecure: c.InsecureSkipTLSVerify}
	if a.caFile != "" && !filepath.IsAbs(a.caFile) {
		a.caFile = filepath.Join(filepath.Dir(c.file), a.caFile)
	}
	return a
}

// client trusts as kubectl does: a given authority takes the place of the
// system's.
func (a *apiServer) client() (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: a.serverName, InsecureSkipVerify: a.insecure}
	pem := a.caData
	if len(pem) == 0 && a.caFile != "" {
		var err error
		if pem, err = os.ReadFile(a.caFile); err != nil {
			return nil, err
		}
	}
	if len(pem) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("the API server's certificate authority holds no certificate in PEM form")
		}
	}
	proxy := http.ProxyFromEnvironment
	if a.proxyURL != "" {
		u, err := url.Parse(a.proxyURL)
		if err != nil {
			return nil, errors.New("the cluster's proxy-url is no URL")
		}
		proxy = http.ProxyURL(u)
	}
	return &http.Client{
		Timeout:   15 * time.Second,
		Transport: &http.Transport{Proxy: proxy, TLSClientConfig: config, ForceAttemptHTTP2: true, DisableKeepAlives: true, MaxResponseHeaderBytes: 256 << 10},
		// The token is for this server and no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// checkAPIServer asks the API server who it takes the token's bearer for. Every
// user may ask that of themselves.
func (d *doctor) checkAPIServer(ctx context.Context) result {
	a := d.server
	switch {
	case a == nil:
		return skipped("no API server is known: give --server=URL, or --context=NAME")
	case a.missing != "" || a.url == "":
		return found("api-config", "kubectl config set-cluster "+shellQuote(a.missing)+" --server=URL", "the kubeconfig has no cluster %q with a server", a.missing)
	case !valid(d.cached):
		return skipped("the cached token has expired")
	}
	if err := flow.CheckURL(a.url); err != nil {
		return found("api-config", "give the API server's https URL", "the token is not shown to this server: %v", err)
	}
	client, err := a.client()
	if err != nil {
		return found("api-config", "check certificate-authority and proxy-url of the cluster, or --server-certificate-authority", "%v", err)
	}
	body := []byte(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(a.url, "/")+"/apis/authentication.k8s.io/v1/selfsubjectreviews", bytes.NewReader(body))
	if err != nil {
		return found("api-config", "give the API server's https URL", "%q is no URL", a.url)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", d.config.UserAgent)
	request.Header.Set("Authorization", "Bearer "+d.cached.Token.Reveal())
	response, err := client.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		if errors.As(err, new(*tls.CertificateVerificationError)) {
			return found("api-tls", "the cluster's certificate-authority in the kubeconfig, or --server-certificate-authority=FILE, must be that of the API server", "the API server's certificate is not trusted: %v", err)
		}
		return found("api-unreachable", "check the server's URL, the VPN and the proxy: curl -k "+shellQuote(strings.TrimSuffix(a.url, "/")+"/version"), "%s cannot be reached: %v", a.url, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	var answer struct {
		Message string `json:"message"` // of a Status
		Status  any    `json:"status"`
	}
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	switch {
	case response.StatusCode == http.StatusUnauthorized:
		return d.unauthorized()
	case response.StatusCode == http.StatusForbidden:
		return found("api-forbidden", "kubectl get clusterrolebinding system:basic-user -o yaml", "the API server knows the user, but does not allow to ask who it is (HTTP status 403): %s", answer.Message)
	case err == nil && (response.StatusCode == http.StatusCreated || response.StatusCode == http.StatusOK):
		user, groups := reviewed(answer.Status)
		if user != "" {
			return fine("%s takes the token for user %q, groups %s", a.url, user, few(groups))
		}
	}
	return found("api-answer", "check that the URL is an API server's, of Kubernetes 1.28 or later: curl -ki "+shellQuote(strings.TrimSuffix(a.url, "/")+"/version"), "%s does not answer as an API server would (HTTP status %d); redirects are not followed", a.url, response.StatusCode)
}

// reviewed reads the status of a SelfSubjectReview.
func reviewed(status any) (user string, groups []string) {
	s, _ := status.(map[string]any) // what is of another type is not there
	info, _ := s["userInfo"].(map[string]any)
	user, _ = info["username"].(string)
	return user, texts(info["groups"])
}

// unauthorized says what a 401 probably means: the API server says it to its log
// alone.
func (d *doctor) unauthorized() result {
	iss, aud := d.text("iss"), few(texts(d.claims["aud"]))
	fixes := []string{
		fmt.Sprintf("kube-apiserver must have --oidc-issuer-url=%s, to the letter, and --oidc-client-id=%s (or an issuer with that url and these audiences in its AuthenticationConfiguration)", iss, aud),
		"it must reach " + strings.TrimSuffix(iss, "/") + "/.well-known/openid-configuration and trust its certificate (--oidc-ca-file)",
		"the token must have the claims that its username, groups and rules want; of email it wants email_verified",
		"its log says which: Unable to authenticate the request",
	}
	if d.claims == nil {
		return found("api-unauthorized", "without --oidc-use-access-token, or a webhook for kube-apiserver that knows such tokens", "the API server refuses the token (HTTP status 401): it is not a JWT")
	}
	if d.keyGone() {
		fixes = append([]string{"the token's key is not published any more, get a new token: " + d.commandLine("login")}, fixes...)
	}
	return found("api-unauthorized", strings.Join(fixes, "\n"), "the API server refuses the token (HTTP status 401): probably it does not take audience %s of issuer %s", aud, iss)
}
