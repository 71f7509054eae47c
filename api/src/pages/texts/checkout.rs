//! Texts on the way to the payment page.

use super::Text;

/// The title and the button of the page from which the shopper goes on.
pub(in super::super) const CONTINUE: Text = Text {
    en: "Continue to payment",
    de: "Weiter zur Zahlung",
    fr: "Continuer vers le paiement",
    es: "Continuar al pago",
    it: "Continua al pagamento",
    nl: "Doorgaan naar betalen",
    pt: "Continuar para o pagamento",
    pl: "Przejdź do płatności",
    ja: "お支払いに進む",
    zh: "继续付款",
    ar: "المتابعة إلى الدفع",
};

/// The explanation of the button.
pub(in super::super) const PRESS: Text = Text {
    en: "Press the button to open the secure payment page.",
    de: "Über die Schaltfläche gelangen Sie zur sicheren Zahlungsseite.",
    fr: "Appuyez sur le bouton pour ouvrir la page de paiement sécurisée.",
    es: "Pulse el botón para abrir la página de pago segura.",
    it: "Premere il pulsante per aprire la pagina di pagamento sicura.",
    nl: "Druk op de knop om de beveiligde betaalpagina te openen.",
    pt: "Use o botão para abrir a página de pagamento segura.",
    pl: "Naciśnij przycisk, aby otworzyć bezpieczną stronę płatności.",
    ja: "ボタンを押すと、安全なお支払いページが開きます。",
    zh: "请点击按钮，打开安全的付款页面。",
    ar: "اضغط على الزر لفتح صفحة الدفع الآمنة.",
};

/// The title of pages that reload, and what a screen reader hears while the form is sent.
pub(in super::super) const MOMENT: Text = Text {
    en: "One moment, please",
    de: "Einen Moment bitte",
    fr: "Un instant, s’il vous plaît",
    es: "Un momento, por favor",
    it: "Un momento, per favore",
    nl: "Een ogenblik geduld",
    pt: "Um momento, por favor",
    pl: "Proszę chwilę poczekać",
    ja: "少々お待ちください",
    zh: "请稍候",
    ar: "لحظة من فضلك",
};

/// The payment page is being created; the page reloads.
pub(in super::super) const PREPARING: Text = Text {
    en: "Your payment page is being prepared. This page refreshes automatically.",
    de: "Ihre Zahlungsseite wird vorbereitet. Diese Seite aktualisiert sich von selbst.",
    fr: "Votre page de paiement est en préparation. Cette page s’actualise automatiquement.",
    es: "Estamos preparando su página de pago. Esta página se actualiza automáticamente.",
    it: "La pagina di pagamento è in preparazione. Questa pagina si aggiorna automaticamente.",
    nl: "Uw betaalpagina wordt voorbereid. Deze pagina wordt automatisch vernieuwd.",
    pt: "A página de pagamento será aberta em instantes. Esta página é atualizada automaticamente.",
    pl: "Przygotowujemy stronę płatności. Ta strona odświeża się automatycznie.",
    ja: "お支払いページを準備しています。このページは自動的に更新されます。",
    zh: "正在准备您的付款页面。本页面会自动刷新。",
    ar: "نقوم بإعداد صفحة الدفع الخاصة بك. يتم تحديث هذه الصفحة تلقائيًا.",
};

/// The title after the payment service refused to create a payment page, or created none in time.
pub(in super::super) const NOT_OPENED: Text = Text {
    en: "We can't open your checkout right now",
    de: "Ihre Zahlungsseite kann gerade nicht geöffnet werden",
    fr: "Votre page de paiement ne peut pas être ouverte pour le moment",
    es: "En este momento no se puede abrir su página de pago",
    it: "Al momento non è possibile aprire la pagina di pagamento",
    nl: "Uw betaalpagina kan op dit moment niet worden geopend",
    pt: "Não é possível abrir a página de pagamento neste momento",
    pl: "W tej chwili nie można otworzyć strony płatności",
    ja: "現在、お支払いページを開けません",
    zh: "目前无法打开您的付款页面",
    ar: "يتعذر فتح صفحة الدفع حاليًا",
};

/// The text where no payment page was opened.
pub(in super::super) const NOTHING_CHARGED: Text = Text {
    en: "Nothing was charged. Please try again later or contact the shop.",
    de: "Es wurde nichts abgebucht. Bitte versuchen Sie es später noch einmal oder wenden Sie sich an den Shop.",
    fr: "Aucun montant n’a été débité. Veuillez réessayer plus tard ou contacter la boutique.",
    es: "No se ha realizado ningún cargo. Inténtelo de nuevo más tarde o póngase en contacto con la tienda.",
    it: "Non è stato addebitato alcun importo. Riprovare più tardi o contattare il negozio.",
    nl: "Er is niets in rekening gebracht. Probeer het later opnieuw of neem contact op met de winkel.",
    pt: "Nada foi cobrado. Tente novamente mais tarde ou fale com a loja.",
    pl: "Nie pobrano żadnej opłaty. Spróbuj ponownie później lub skontaktuj się ze sklepem.",
    ja: "料金は請求されていません。しばらくしてからもう一度お試しいただくか、ショップにお問い合わせください。",
    zh: "未产生任何扣款。请稍后重试，或联系商店。",
    ar: "لم يتم خصم أي مبلغ. يرجى المحاولة مرة أخرى لاحقًا أو الاتصال بالمتجر.",
};

/// The title after a page reloaded for a long time while the database was unavailable.
pub(in super::super) const SLOW: Text = Text {
    en: "This is taking longer than usual",
    de: "Das dauert länger als üblich",
    fr: "Cela prend plus de temps que d’habitude",
    es: "Está tardando más de lo habitual",
    it: "L’operazione richiede più tempo del solito",
    nl: "Dit duurt langer dan gebruikelijk",
    pt: "Isto demora mais do que o habitual",
    pl: "To trwa dłużej niż zwykle",
    ja: "通常より時間がかかっています",
    zh: "所需时间比平时长",
    ar: "يستغرق هذا وقتًا أطول من المعتاد",
};

/// The text after a page reloaded for a long time while the database was unavailable.
pub(in super::super) const LATER: Text = Text {
    en: "Please try again in a few minutes.",
    de: "Bitte versuchen Sie es in ein paar Minuten noch einmal.",
    fr: "Veuillez réessayer dans quelques minutes.",
    es: "Inténtelo de nuevo dentro de unos minutos.",
    it: "Riprovare tra qualche minuto.",
    nl: "Probeer het over enkele minuten opnieuw.",
    pt: "Tente novamente dentro de alguns minutos.",
    pl: "Spróbuj ponownie za kilka minut.",
    ja: "数分後にもう一度お試しください。",
    zh: "请几分钟后重试。",
    ar: "يرجى المحاولة مرة أخرى بعد بضع دقائق.",
};

/// The button of both.
pub(in super::super) const TRY_AGAIN: Text = Text {
    en: "Try again",
    de: "Erneut versuchen",
    fr: "Réessayer",
    es: "Intentar de nuevo",
    it: "Riprova",
    nl: "Opnieuw proberen",
    pt: "Tentar novamente",
    pl: "Spróbuj ponownie",
    ja: "もう一度試す",
    zh: "重试",
    ar: "إعادة المحاولة",
};

/// The title where the payment service can't charge the cart's total.
pub(in super::super) const NOT_ONLINE: Text = Text {
    en: "This cart can't be paid online",
    de: "Dieser Warenkorb kann nicht online bezahlt werden",
    fr: "Ce panier ne peut pas être payé en ligne",
    es: "Este carrito no se puede pagar en línea",
    it: "Questo carrello non può essere pagato online",
    nl: "Deze winkelwagen kan niet online worden betaald",
    pt: "Este carrinho não pode ser pago online",
    pl: "Za ten koszyk nie można zapłacić online",
    ja: "このカートはオンラインでお支払いいただけません",
    zh: "此购物车无法在线付款",
    ar: "لا يمكن دفع قيمة سلة التسوق هذه عبر الإنترنت",
};

/// The text where the payment service can't charge the cart's total.
pub(in super::super) const NOT_CHARGEABLE: Text = Text {
    en: "Its total can't be charged. Please contact the shop.",
    de: "Der Gesamtbetrag kann nicht abgebucht werden. Bitte wenden Sie sich an den Shop.",
    fr: "Le montant total ne peut pas être débité. Veuillez contacter la boutique.",
    es: "No es posible cobrar el importe total. Póngase en contacto con la tienda.",
    it: "L’importo totale non può essere addebitato. Contattare il negozio.",
    nl: "Het totaalbedrag kan niet in rekening worden gebracht. Neem contact op met de winkel.",
    pt: "Não é possível cobrar o valor total. Fale com a loja.",
    pl: "Nie można pobrać łącznej kwoty. Skontaktuj się ze sklepem.",
    ja: "合計金額を請求できません。ショップにお問い合わせください。",
    zh: "无法收取总金额。请联系商店。",
    ar: "لا يمكن تحصيل المبلغ الإجمالي. يرجى الاتصال بالمتجر.",
};
