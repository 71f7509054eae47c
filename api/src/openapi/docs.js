// Shows the OpenAPI document, whose address is relative to this script's. A key entered under
// "Authorize" is gone when the page is closed.
const address = new URL("../api/openapi.json", document.currentScript.src).href;
SwaggerUIBundle({
  url: address,
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: "none",
  // The page may only send requests to its own host, which is the last of the document's servers.
  responseInterceptor: (response) => {
    if (response.url === address && response.ok) {
      const api = JSON.parse(response.text);
      api.servers.reverse();
      response.text = JSON.stringify(api);
    }
    return response;
  },
});
