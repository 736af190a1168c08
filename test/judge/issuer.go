package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
)

// An issuerConfig says whose tokens to judge and on behalf of which audience.
type issuerConfig struct {
	url      string
	caFile   string
	audience string
}

// addIssuerFlags defines the flags that fill the returned configuration.
func addIssuerFlags(flags *flag.FlagSet) *issuerConfig {
	var issuer issuerConfig
	flags.StringVar(&issuer.url, "issuer", "", "issuer `URL`")
	flags.StringVar(&issuer.caFile, "ca", "", "PEM `FILE` of the CA that the issuer's TLS certificate must chain to")
	flags.StringVar(&issuer.audience, "audience", "", "`NAME` that a token must be meant for")
	return &issuer
}

// client returns an HTTP client that trusts the issuer's CA and no other.
func (issuer *issuerConfig) client() (*http.Client, error) {
	pem, err := os.ReadFile(issuer.caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no PEM certificate", issuer.caFile)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	return &http.Client{Transport: transport, Timeout: startTimeout}, nil
}

// fetch returns the body of a successful GET.
func fetch(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return io.ReadAll(response.Body)
}
