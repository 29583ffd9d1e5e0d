package issuer

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// Start gives an issuer that listens, until Close.
func Start(o Options) (*Issuer, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, err
	}
	scheme := "http"
	var caPEM []byte
	if o.TLS || o.TLSConfig != nil {
		scheme = "https"
		config := o.TLSConfig
		if config == nil {
			config, caPEM, err = certificate(append([]string{"127.0.0.1", "::1", "localhost"}, o.Hosts...))
			if err != nil {
				listener.Close()
				return nil, err
			}
		}
		listener = tls.NewListener(listener, config)
	}
	if o.Base == "" {
		o.Base = scheme + "://" + listener.Addr().String()
	}
	is := New(o)
	is.caPEM = caPEM
	// Clients that do not trust the certificate are part of the tests: silence.
	is.server = &http.Server{Handler: is.Handler(), ErrorLog: log.New(io.Discard, "", 0)}
	go is.server.Serve(listener) // ends with Close, and only then
	return is, nil
}

// Close stops listening and cuts every connection. What the issuer knows can
// still be asked.
func (is *Issuer) Close() {
	if is.server != nil {
		is.server.Close() // an error here is of a listener that is closed anyway
	}
}

// CAPEM is the certificate authority to trust; empty without TLS.
func (is *Issuer) CAPEM() []byte { return slices.Clone(is.caPEM) }

// Client gives a client whose requests go straight to the handler, without a
// socket: for testing/synctest bubbles. It reaches no other host.
func (is *Issuer) Client() *http.Client {
	base, err := url.Parse(is.base)
	if err != nil {
		panic("issuer: " + err.Error()) // a Base that is no URL
	}
	return &http.Client{Transport: &direct{host: base.Host, handler: is.Handler()}}
}

type direct struct {
	host    string
	handler http.Handler
}

// RoundTrip treats what a handler does like a server would: to abort is to
// break the connection off. Any other panic is a mistake in a test, and shown.
func (d *direct) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		body, err = io.ReadAll(req.Body)
		req.Body.Close() // it is read
		if err != nil {
			return nil, err
		}
	}
	if err := context.Cause(req.Context()); err != nil {
		return nil, err
	}
	if req.URL.Host != d.host {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: req.URL.Hostname(), IsNotFound: true}}
	}
	ctx, cancel := context.WithCancel(req.Context())
	in := req.Clone(ctx)
	in.Body, in.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	in.RequestURI, in.RemoteAddr, in.Host = req.URL.RequestURI(), "192.0.2.1:1234", d.host

	done := make(chan *recorder, 1)
	go func() {
		defer cancel()
		rec := &recorder{header: http.Header{}}
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				rec = nil
			default:
				panic(p)
			}
			done <- rec
		}()
		d.handler.ServeHTTP(rec, in)
	}()
	select {
	case <-req.Context().Done():
		return nil, context.Cause(req.Context())
	case rec := <-done:
		if rec == nil {
			return nil, io.ErrUnexpectedEOF
		}
		return rec.response(req), nil
	}
}

type recorder struct {
	status int
	header http.Header // what the handler writes to
	sent   http.Header // what it was when the status went out
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status, r.sent = status, r.header.Clone()
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}

func (r *recorder) response(req *http.Request) *http.Response {
	r.WriteHeader(http.StatusOK)
	return &http.Response{
		StatusCode: r.status, Status: fmt.Sprintf("%d %s", r.status, http.StatusText(r.status)), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: r.sent, Body: io.NopCloser(&r.body), ContentLength: int64(r.body.Len()), Request: req,
	}
}

// certificate makes an authority, and with it one certificate for the hosts.
func certificate(hosts []string) (*tls.Config, []byte, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "issuer test authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, 30),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, nil, err
	}
	if ca, err = x509.ParseCertificate(caDER); err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano() + 1), Subject: pkix.Name{CommonName: "issuer"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), nil
}
